-- A catalog as version 1 made it, with a row in each table. Never rewritten.
CREATE TABLE damage (
    repository VARCHAR(32) NOT NULL,
    destination VARCHAR(32) NOT NULL,
    object VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    found VARCHAR NOT NULL,
    PRIMARY KEY (repository, destination, object)
);
CREATE TABLE replica_speed (
    repository VARCHAR(32) NOT NULL,
    destination VARCHAR(32) NOT NULL,
    first_byte FLOAT NOT NULL,
    goodput FLOAT NOT NULL,
    PRIMARY KEY (repository, destination)
);
CREATE TABLE replicas (
    repository VARCHAR(32) NOT NULL,
    destination VARCHAR(32) NOT NULL,
    snapshot VARCHAR(32) NOT NULL,
    first_seen VARCHAR NOT NULL,
    PRIMARY KEY (repository, destination, snapshot)
);
CREATE TABLE schema_version (
    version BIGINT NOT NULL,
    PRIMARY KEY (version)
);
CREATE TABLE snapshots (
    repository VARCHAR(32) NOT NULL,
    id VARCHAR(32) NOT NULL,
    volume VARCHAR NOT NULL,
    generation BIGINT NOT NULL,
    created VARCHAR NOT NULL,
    size BIGINT NOT NULL,
    block_size BIGINT NOT NULL,
    bytes_new BIGINT NOT NULL,
    parent VARCHAR(32),
    payload BLOB NOT NULL,
    PRIMARY KEY (repository, id)
);
CREATE INDEX ix_snapshots_volume ON snapshots (volume);
INSERT INTO schema_version VALUES (1);
INSERT INTO snapshots VALUES ('abababababababababababababababab', '00000000000000000000000000000001', 'vm/root', 6, '2026-11-22T00:00:00+00:00', 1, 262144, 1, NULL, x'7b7d');
INSERT INTO snapshots VALUES ('abababababababababababababababab', '00000000000000000000000000000002', 'vm/root', 7, '2026-11-22T00:00:00+00:00', 1, 262144, 1, NULL, x'7b7d');
INSERT INTO snapshots VALUES ('abababababababababababababababab', '00000000000000000000000000000003', 'vm/data', 2, '2026-11-22T00:00:00+00:00', 1, 262144, 1, NULL, x'7b7d');
INSERT INTO snapshots VALUES ('00000000000000000000000000000000', '00000000000000000000000000000004', 'x', 9, '2026-11-22T00:00:00+00:00', 1, 262144, 1, NULL, x'7b7d');
INSERT INTO replicas VALUES ('abababababababababababababababab', 'cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd', '00000000000000000000000000000001', '2026-11-22T00:00:00+00:00');
INSERT INTO replicas VALUES ('abababababababababababababababab', 'cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd', '00000000000000000000000000000002', '2026-11-22T00:00:00+00:00');
INSERT INTO damage VALUES ('abababababababababababababababab', 'cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd', 'config', 'missing', '2026-11-22T00:00:00+00:00');
INSERT INTO replica_speed VALUES ('abababababababababababababababab', 'cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd', 0.25, 1000000.0);
