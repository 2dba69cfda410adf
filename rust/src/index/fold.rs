//! Folding: loose segments become bundles, and some bundles get a table that takes in older tables, so that there are always few.
//!
//! Step by step, so that whoever folds can stop at any time. What is dropped or killed before its end leaves nothing that counts:
//! files get their names when they are whole, and count when `current` names them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Index;
use super::bundle::{Bundle, BundleWriter};
use super::layers::{Laid, Level, write_current};
use super::plan::{From, Merged, Output, Plan, Shape, taken_in};
use super::recent::Loose;
use super::table::{Key, Named, Table, bundle_file};
use super::table_writer::{Grouped, TableWriter};
use crate::error::{Error, Result};

/// How many entries one step merges: some ten milliseconds.
const STEP: usize = 1 << 20;

enum Stage {
    Bundles { output: usize, part: usize, writer: Option<BundleWriter> },
    Table { writer: TableWriter, fresh: Grouped },
    Done,
}

/// One fold that is under way.
pub struct Fold {
    index: Arc<Index>,
    directory: PathBuf,
    sorts: bool,
    /// Files that stay as they are: tables, and bundles without one.
    kept: Vec<String>,
    /// So many tables stay, those included that are mapped here alone.
    levels: usize,
    /// Bundles that had no table and get one.
    unsorted: Vec<String>,
    loose: Vec<Arc<Loose>>,
    merged: Vec<Merged>,
    outputs: Vec<Output>,
    /// Keys of what is in no table yet, in the order of their new numbers.
    fresh: Vec<Key>,
    stage: Stage,
    made: Vec<PathBuf>,
}

impl Fold {
    /// Begins to fold what is loose now, upon what `directory` holds now. With a table if `last`, or if much is without one.
    /// None if there is nothing to do. One at a time in a directory.
    pub fn begin(index: &Arc<Index>, directory: &Path, shape: Shape, last: bool) -> Result<Option<Self>> {
        index.adopt(directory, shape.unsorted);
        index.with_state(|layers, recent, whole| {
            let loose: Vec<Arc<Loose>> = recent.loose().cloned().collect();
            // What another fold left out is only mapped here, and is to be written anew.
            let is_there = |laid: &Laid| directory.join(bundle_file(&laid.bundle.name)).exists();
            let left_out =
                layers.levels.iter().any(|level| level.left_out) || !recent.bundles().iter().all(is_there);
            let sorts = last || recent.entries() >= shape.unsorted || left_out;
            if loose.is_empty() && !left_out && (recent.bundles().is_empty() || !sorts) {
                return Ok(None);
            }
            let taken = if sorts { taken_in(&layers.levels, recent.entries(), shape, whole) } else { 0 };
            let (kept, taken) = layers.levels.split_at(layers.levels.len() - taken);
            let mut plan = Plan::new(shape.bundle, whole);
            for level in taken {
                plan.level(level, is_there)?;
            }
            let staying = kept.iter().filter(|level| !level.left_out);
            let mut files: Vec<String> = staying.map(|level| level.table.name.clone()).collect();
            let mut unsorted: Vec<String> =
                recent.bundles().iter().map(|laid| bundle_file(&laid.bundle.name)).collect();
            if sorts {
                recent
                    .bundles()
                    .iter()
                    .try_for_each(|laid| plan.bundle(laid, true, is_there(laid), |_, _| ()))?;
            } else {
                files.append(&mut unsorted);
            }
            loose.iter().for_each(|loose| plan.put(From::Loose(loose.clone())));
            Ok(Some(Self {
                index: index.clone(),
                directory: directory.to_owned(),
                sorts,
                kept: files,
                levels: kept.len(),
                unsorted,
                loose,
                merged: plan.merged,
                outputs: plan.outputs,
                fresh: Vec::new(),
                stage: Stage::Bundles { output: 0, part: 0, writer: None },
                made: Vec::new(),
            }))
        })
    }

    /// Does a little; false once all is done.
    pub fn step(&mut self) -> Result<bool> {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Bundles { output, part, writer } if output < self.outputs.len() => {
                self.bundle(output, part, writer)?
            }
            Stage::Bundles { .. } if self.sorts => self.begin_table()?,
            Stage::Bundles { .. } => self.publish_bundles()?,
            Stage::Table { writer, fresh } => self.merge(writer, fresh)?,
            Stage::Done => Stage::Done,
        };
        Ok(!matches!(self.stage, Stage::Done))
    }

    /// The entries of one segment into a bundle.
    fn bundle(&mut self, output: usize, part: usize, writer: Option<BundleWriter>) -> Result<Stage> {
        let next = Stage::Bundles { output: output + 1, part: 0, writer: None };
        let (from, named) = match &mut self.outputs[output] {
            Output::Kept { laid, fresh } => {
                if *fresh {
                    self.fresh.extend(laid.bundle.prefixes().map(|prefix| Key::of(&prefix)));
                }
                return Ok(next);
            }
            Output::Made { from, named, .. } => (from, named),
        };
        let mut writer = match writer {
            Some(writer) => writer,
            None => {
                let sizes: Vec<_> = from.iter().map(From::size).collect();
                let mut writer = BundleWriter::create(&self.directory, &sizes)?;
                from.iter().try_for_each(|it| writer.packs(&it.source()?))?;
                writer
            }
        };
        let fresh = self.sorts && from[part].is_fresh();
        let keys = &mut self.fresh;
        writer.entries(&from[part].source()?, |key| {
            if fresh {
                keys.push(key)
            }
        })?;
        if part + 1 < from.len() {
            return Ok(Stage::Bundles { output, part: part + 1, writer: Some(writer) });
        }
        let finished = writer.finish(&self.directory)?;
        self.made.push(self.directory.join(bundle_file(&finished.name)));
        *named = Some(finished);
        Ok(next)
    }

    fn begin_table(&mut self) -> Result<Stage> {
        let bundles: Vec<Named> = self.outputs.iter().filter_map(Output::named).collect();
        let entries: usize = self.outputs.iter().map(Output::entries).sum();
        // What is fresh comes last, in the bundles and so in the numbers.
        let Some(first) = entries.checked_sub(self.fresh.len()) else {
            return Err(Error::Damaged("a bundle of the index cache is damaged".into()));
        };
        let writer = TableWriter::create(&self.directory, &bundles, entries)?;
        let fresh = Grouped::new(&std::mem::take(&mut self.fresh), first as u32);
        Ok(Stage::Table { writer, fresh })
    }

    /// The next entries of all tables, in order.
    fn merge(&mut self, mut writer: TableWriter, fresh: Grouped) -> Result<Stage> {
        let enough = writer.entries() + STEP;
        let mut entries: Vec<u64> = Vec::new();
        while let Some(group) = writer.next_group() {
            if writer.entries() >= enough {
                return Ok(Stage::Table { writer, fresh });
            }
            entries.clear();
            for merged in &self.merged {
                entries.extend(merged.table.group(group)?.filter_map(|entry| merged.renumbered(entry)));
            }
            let sorted = entries.len();
            entries.extend(fresh.group(group));
            entries[sorted..].sort_unstable();
            // Some runs that are in order, one after another: they are found and merged. Of equal keys the older has the smaller number.
            entries.sort();
            writer.write_group(&entries)?;
        }
        self.publish_table(writer)?;
        Ok(Stage::Done)
    }

    /// Makes it count: here, and for whoever opens the directory from now on.
    fn publish_table(&mut self, writer: TableWriter) -> Result<()> {
        let name = writer.finish(&self.directory)?;
        self.made.push(self.directory.join(&name));
        let table = Table::open(&self.directory, &name)?;
        let bundles = self.outputs.iter().map(|output| self.laid(output)).collect::<Result<Vec<_>>>()?;
        self.kept.push(name);
        let text = write_current(&self.directory, &self.kept)?;
        self.made.clear();
        let level = Level::new(table, bundles.into_iter().map(Some).collect());
        self.index.install(text, self.levels, level, &self.loose);
        self.remove_old();
        Ok(())
    }

    fn publish_bundles(&mut self) -> Result<Stage> {
        let bundles = self.outputs.iter().map(|output| self.laid(output)).collect::<Result<Vec<_>>>()?;
        self.kept.extend(bundles.iter().map(|laid| bundle_file(&laid.bundle.name)));
        let text = write_current(&self.directory, &self.kept)?;
        self.made.clear();
        self.index.bind(text, bundles, &self.loose);
        Ok(Stage::Done)
    }

    fn laid(&self, output: &Output) -> Result<Laid> {
        match (output, output.named()) {
            (Output::Kept { laid, .. }, _) => Ok(laid.clone()),
            (Output::Made { from, .. }, Some(named)) => {
                let mut laid = Laid::new(Arc::new(Bundle::open(&self.directory, named.name)?));
                let mut live = from.iter().map(From::is_live);
                laid.settle(|_| live.next().unwrap_or(false));
                Ok(laid)
            }
            _ => Err(Error::Usage("a bundle that was not made".into())),
        }
    }

    /// Nobody opens these any more; who has them mapped keeps them.
    fn remove_old(&self) {
        let stays: Vec<String> =
            self.outputs.iter().filter_map(Output::named).map(|it| bundle_file(&it.name)).collect();
        let merged = || self.merged.iter().filter(|it| !it.left_out);
        let tables = merged().map(|it| it.table.name.clone());
        let of_tables = merged().flat_map(|it| &it.table.bundles).map(|it| bundle_file(&it.name));
        let unsorted = self.unsorted.iter().cloned();
        for name in tables.chain(of_tables).chain(unsorted).filter(|name| !stays.contains(name)) {
            let _ = std::fs::remove_file(self.directory.join(name));
        }
    }
}

impl Drop for Fold {
    fn drop(&mut self) {
        for path in &self.made {
            let _ = std::fs::remove_file(path);
        }
    }
}
