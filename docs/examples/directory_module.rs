//! A snapferry storage module that keeps objects as files below a directory, in one file and with the standard library alone:
//! `rustc -O docs/examples/directory_module.rs`. docs/modules.md is what it follows.
//!
//! Objects are written to a file of their own, synced, and given their name by link(2), which never replaces; then the directory is synced.
//! Memory does not grow with an object: bytes go between socket and file piece by piece.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, thread};

const PIECE: usize = 1 << 18;
const PAGE: usize = 1000;
const LONGEST_HEAD: u64 = 16 << 10;
const TEMPORARY: &str = "tmp";
/// After so long nobody works on a temporary file any more: no put is given more than minutes, and a day hides what clocks differ by.
const STALE: Duration = Duration::from_secs(86_400);
const ABOUT: &str = r#"{"protocol":1,"exclusive_create":true,"consistent_list":true,"durable":true,"concurrency":8}"#;

/// What ends a request: an answer that refuses it, or a connection that broke.
enum End {
    Refused(u16, &'static str),
    Failed(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        End::Failed(error)
    }
}

type Served<T> = Result<T, End>;

struct Store {
    root: PathBuf,
    /// Directories whose names are durable.
    known: Mutex<HashSet<PathBuf>>,
}

struct Request {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn word(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

struct Connection {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

fn main() -> io::Result<()> {
    let variable = |name: &str| env::var(name).map_err(|_| io::Error::other(format!("${name} is not set")));
    let root = PathBuf::from(variable("SNAPFERRY_DIRECTORY")?);
    let temporary = root.join(TEMPORARY);
    fs::create_dir_all(&temporary)?;
    clear_away(&temporary)?;
    let known = Mutex::new(HashSet::from([root.clone()]));
    let store = Arc::new(Store { root, known });
    // A thread for each connection; snapferry opens few, and uses them again.
    for stream in UnixListener::bind(variable("SNAPFERRY_SOCKET")?)?.incoming() {
        if let Err(error) = stream.and_then(|stream| start(stream, store.clone())) {
            eprintln!("a connection was dropped: {error}"); // too many of them: the others go on
        }
    }
    Ok(())
}

/// Removes what puts left that a kill broke off, if it is old: the young may be of another process on the same directory, which still writes.
fn clear_away(temporary: &Path) -> io::Result<()> {
    for entry in fs::read_dir(temporary)? {
        let path = entry?.path();
        // Where there is none any more another process clears away, too.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_file() && metadata.modified()?.elapsed().is_ok_and(|age| age > STALE) {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

/// A name that no other process gives.
fn random_name() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn start(writer: UnixStream, store: Arc<Store>) -> io::Result<()> {
    let mut connection = Connection { reader: BufReader::with_capacity(PIECE, writer.try_clone()?), writer };
    thread::Builder::new().stack_size(1 << 20).spawn(move || while let Ok(true) = connection.serve(&store) {})?;
    Ok(())
}

impl Connection {
    /// Serves one request; whether there may be another on this connection.
    fn serve(&mut self, store: &Store) -> io::Result<bool> {
        let Some(request) = self.head()? else { return Ok(false) };
        let served = match request.method.as_str() {
            "GET" | "HEAD" if request.path.ends_with('/') => self.describe(store, &request),
            "GET" | "HEAD" => self.get(store, &request),
            "PUT" => self.put(store, &request),
            "DELETE" => self.delete(store, &request),
            _ => Err(End::Refused(405, "no such method")),
        };
        let (status, reason) = match served {
            Ok(()) => return Ok(true),
            Err(End::Refused(status, reason)) => (status, reason.to_string()),
            Err(End::Failed(error)) => match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => (507, error.to_string()),
                ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => return Err(error),
                _ => (500, error.to_string()),
            },
        };
        let title: String = reason.chars().filter(|c| !c.is_control() && *c != '"' && *c != '\\').collect();
        let body = if request.method == "HEAD" { String::new() } else { format!("{{\"title\":\"{title}\"}}") };
        // Of a put that was refused who knows what was read: the connection ends.
        let close = request.method == "PUT";
        let more = if close { "Connection: close\r\n" } else { "" };
        self.answer(status, more, body.len() as u64, body.as_bytes())?;
        Ok(!close)
    }

    /// The head of the next request; None where there is none.
    fn head(&mut self) -> io::Result<Option<Request>> {
        let mut head = (&mut self.reader).take(LONGEST_HEAD);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if head.read_line(&mut line)? == 0 || !line.ends_with('\n') {
                return Ok(None);
            }
            match line.trim_end() {
                "" => break,
                text => lines.push(text.to_string()),
            }
        }
        let mut words = lines.first().map(String::as_str).unwrap_or("").split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pair = |text: &str, by: char| text.split_once(by).map_or((text.to_string(), String::new()), |(k, v)| (k.into(), v.trim().into()));
        Ok(Some(Request {
            method: method.to_string(),
            path: path.to_string(),
            query: query.split('&').map(|word| pair(&word.replace("%2F", "/").replace("%2f", "/"), '=')).collect(),
            headers: lines[1..].iter().map(|line| pair(line, ':')).collect(),
        }))
    }

    fn answer(&mut self, status: u16, headers: &str, length: u64, body: &[u8]) -> io::Result<()> {
        let length = if status == 204 { String::new() } else { format!("Content-Length: {length}\r\n") };
        let mut bytes = format!("HTTP/1.1 {status} -\r\n{headers}{length}\r\n").into_bytes();
        bytes.extend_from_slice(body);
        self.writer.write_all(&bytes)
    }

    /// What the module is, or a page of a listing.
    fn describe(&mut self, store: &Store, request: &Request) -> Served<()> {
        if request.word("about").is_some() {
            return Ok(self.answer(200, "", ABOUT.len() as u64, ABOUT.as_bytes())?);
        }
        let base = &request.path[1..];
        let prefix = format!("{base}{}", request.word("prefix").unwrap_or(""));
        if !prefix.is_empty() {
            store.path_of(prefix.trim_end_matches('/'))?; // refuses what is no prefix
        }
        let after = request.word("after").map(|key| format!("{base}{key}")).unwrap_or_default();
        let limit = request.word("limit").and_then(|n| n.parse().ok()).unwrap_or(PAGE).clamp(1, PAGE);
        let mut found = Vec::new();
        store.walk(&prefix, &after, limit + 1, &mut found)?;
        let more = found.len() > limit;
        found.truncate(limit);
        let objects: Vec<String> =
            found.iter().map(|(key, size)| format!("{{\"key\":\"{}\",\"size\":{size}}}", &key[base.len()..])).collect();
        let body = format!("{{\"objects\":[{}],\"more\":{more}}}", objects.join(","));
        Ok(self.answer(200, "", body.len() as u64, body.as_bytes())?)
    }

    fn get(&mut self, store: &Store, request: &Request) -> Served<()> {
        let path = store.path_of(&request.path[1..])?;
        let gone = |error: io::Error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => End::Refused(404, "there is no such object"),
            _ => End::Failed(error),
        };
        let mut file = File::open(path).map_err(gone)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(End::Refused(404, "there is no such object"));
        }
        let size = metadata.len();
        let (status, begin, end) = match request.header("Range").and_then(|text| text.strip_prefix("bytes=")).and_then(|r| r.split_once('-')) {
            None => (200, 0, size),
            Some(("", last)) => (206, size.saturating_sub(last.parse().unwrap_or(0)), size),
            Some((first, last)) => {
                let end = last.parse::<u64>().map_or(size, |last| last.saturating_add(1).min(size));
                (206, first.parse().unwrap_or(u64::MAX), end)
            }
        };
        if status == 206 && begin >= end {
            return Ok(self.answer(416, &format!("Content-Range: bytes */{size}\r\n"), 0, b"")?);
        }
        let range = if status == 206 { format!("Content-Range: bytes {begin}-{}/{size}\r\n", end - 1) } else { String::new() };
        self.answer(status, &range, end - begin, b"")?;
        if request.method == "GET" {
            file.seek(SeekFrom::Start(begin))?;
            if io::copy(&mut file.take(end - begin), &mut self.writer)? < end - begin {
                // The head has gone out: all that is left to say is that this is not the whole.
                return Err(ErrorKind::UnexpectedEof.into()).map_err(End::Failed);
            }
        }
        Ok(())
    }

    fn put(&mut self, store: &Store, request: &Request) -> Served<()> {
        let path = store.path_of(&request.path[1..])?;
        let length = request.header("Content-Length").and_then(|text| text.parse::<u64>().ok());
        let digest = request.header("Content-Digest").and_then(|text| text.strip_prefix("sha-256=:")).and_then(|text| text.strip_suffix(':'));
        let (Some(length), Some(digest), Some("*")) = (length, digest, request.header("If-None-Match")) else {
            return Err(End::Refused(400, "a put needs Content-Length, Content-Digest (sha-256) and If-None-Match: *"));
        };
        let temporary = store.root.join(TEMPORARY).join(random_name()?);
        let kept = self.keep(store, &temporary, &path, length, digest);
        let _ = fs::remove_file(&temporary);
        let status = kept?;
        Ok(self.answer(status, "", 0, b"")?)
    }

    fn keep(&mut self, store: &Store, temporary: &Path, path: &Path, length: u64, digest: &str) -> Served<u16> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
        let mut hash = Sha256::new();
        let mut left = length;
        while left > 0 {
            let piece = self.reader.fill_buf()?;
            if piece.is_empty() {
                return Err(End::Failed(ErrorKind::UnexpectedEof.into()));
            }
            let taken = (piece.len() as u64).min(left) as usize;
            hash.update(&piece[..taken]);
            file.write_all(&piece[..taken])?;
            self.reader.consume(taken);
            left -= taken as u64;
        }
        file.sync_all()?;
        if base64(&hash.finish()) != digest {
            return Err(End::Refused(400, "the bytes are not what Content-Digest says"));
        }
        let above = path.parent().unwrap_or(&store.root);
        store.make_directory(above)?;
        let status = match fs::hard_link(temporary, path) {
            Ok(()) => 201,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => 412,
            Err(error) => return Err(End::Failed(error)),
        };
        sync(above)?; // also for 412: another put may have made the name, and not synced it yet
        Ok(status)
    }

    fn delete(&mut self, store: &Store, request: &Request) -> Served<()> {
        let path = store.path_of(&request.path[1..])?;
        let absent = |error: io::Error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory => Ok(()),
            _ => Err(error),
        };
        fs::remove_file(&path).or_else(absent)?;
        sync(path.parent().unwrap_or(&store.root)).or_else(absent)?; // also where it was gone: who removed it may not have synced it yet
        Ok(self.answer(204, "", 0, b"")?)
    }
}

impl Store {
    /// The file of an object. No part is empty, hidden, `.` or `..`, so nothing outside of the directory has a key.
    fn path_of(&self, key: &str) -> Served<PathBuf> {
        let good = key.split('/').all(is_part) && key.split('/').next() != Some(TEMPORARY);
        if good { Ok(self.root.join(key)) } else { Err(End::Refused(400, "that is no key")) }
    }

    /// Keys and sizes below a prefix and after a key, in the order of bytes: a directory sorts as its name and a slash.
    fn walk(&self, prefix: &str, after: &str, limit: usize, found: &mut Vec<(String, u64)>) -> io::Result<()> {
        let entries = match fs::read_dir(self.root.join(prefix)) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
            entries => entries?,
        };
        let mut keys = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| is_part(name)) else { continue };
            keys.push(format!("{prefix}{name}{}", if entry.file_type()?.is_dir() { "/" } else { "" }));
        }
        keys.sort_unstable();
        for key in keys {
            if found.len() >= limit {
                break;
            }
            if key.ends_with('/') {
                if key != format!("{TEMPORARY}/") && (key.as_str() > after || after.starts_with(&key)) {
                    self.walk(&key, after, limit, found)?;
                }
            } else if key.as_str() > after {
                match fs::metadata(self.root.join(&key)) {
                    Ok(metadata) => found.push((key, metadata.len())),
                    Err(error) if error.kind() == ErrorKind::NotFound => {} // deleted meanwhile
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Makes a directory and those above it. One whose name somebody else has made may not be synced yet, so each is synced here, once.
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        if self.known.lock().unwrap().contains(path) {
            return Ok(());
        }
        let above = path.parent().unwrap_or(&self.root);
        self.make_directory(above)?;
        fs::create_dir_all(path)?;
        sync(above)?;
        self.known.lock().unwrap().insert(path.to_path_buf());
        Ok(())
    }
}

fn is_part(part: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
    let bytes = part.as_bytes();
    (1..=200).contains(&bytes.len()) && word(bytes[0]) && bytes.iter().all(|&c| word(c) || c == b'.')
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0u32, |n, &byte| n << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// SHA-256 (FIPS 180-4), which the standard library does not have.
struct Sha256 {
    state: [u32; 8],
    block: Vec<u8>,
    length: u64,
}

impl Sha256 {
    fn new() -> Self {
        let state = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
        Sha256 { state, block: Vec::with_capacity(64), length: 0 }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if !self.block.is_empty() {
            let taken = bytes.len().min(64 - self.block.len());
            self.block.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.block.len() == 64 {
                let block = std::mem::take(&mut self.block);
                self.mix(&block);
            }
        }
        let mut whole = bytes.chunks_exact(64);
        for block in &mut whole {
            self.mix(block);
        }
        self.block.extend_from_slice(whole.remainder());
    }

    fn finish(mut self) -> [u8; 32] {
        let bits = self.length * 8;
        let zeros = (55u64.wrapping_sub(self.length) % 64) as usize;
        self.update(&[&[0x80], &vec![0; zeros][..], &bits.to_be_bytes()].concat());
        let mut out = [0; 32];
        for (place, word) in self.state.iter().enumerate() {
            out[4 * place..4 * place + 4].copy_from_slice(&word.to_be_bytes());
        }
        out
    }

    fn mix(&mut self, block: &[u8]) {
        const K: [u32; 64] = [
            0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
            0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
            0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
            0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
            0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
            0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
        ];
        let mut w = [0u32; 64];
        for (place, word) in block.chunks_exact(4).enumerate() {
            w[place] = u32::from_be_bytes([word[0], word[1], word[2], word[3]]);
        }
        for i in 16..64 {
            let a = w[i - 15].rotate_right(7) ^ w[i - 15].rotate_right(18) ^ (w[i - 15] >> 3);
            let b = w[i - 2].rotate_right(17) ^ w[i - 2].rotate_right(19) ^ (w[i - 2] >> 10);
            w[i] = w[i - 16].wrapping_add(a).wrapping_add(w[i - 7]).wrapping_add(b);
        }
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = self.state;
        for i in 0..64 {
            let s = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let one = h.wrapping_add(s).wrapping_add(e & f ^ !e & g).wrapping_add(K[i]).wrapping_add(w[i]);
            let s = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let two = s.wrapping_add(a & b ^ a & c ^ b & c);
            (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(one), c, b, a, one.wrapping_add(two));
        }
        for (word, more) in self.state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *word = word.wrapping_add(more);
        }
    }
}
