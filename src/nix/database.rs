//! The store database, read directly.
//!
//! Schema: `src/libstore/schema.sql` in NixOS/nix, unchanged in what is read here since Nix 2.0.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::time::Duration;

use nix_derivation::{CAHash, NixHash, StoreDir, StorePath};
use nix_narinfo::NixSignature;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use crate::graph::PathInfo;

/// How long to wait for a writer that holds the database.
const BUSY: Duration = Duration::from_secs(10);

/// A read-only connection to the store database.
pub(super) struct Database {
    connection: Connection,
    store_dir: StoreDir,
}

/// Why the database did not give an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum DatabaseError {
    /// It cannot be opened or read.
    #[error("cannot read the store database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A row makes no sense.
    #[error("the store database is damaged at {path}: {reason}")]
    Damaged { path: String, reason: String },
    /// A path is not registered.
    #[error("{path} is not valid")]
    NotValid { path: String },
}

impl Database {
    /// Opens the database of a state directory.
    ///
    /// A write-ahead-logged database cannot be opened read-only by somebody who may not write beside it, unless another
    /// process has it open (NixOS/nix#10300). Where no log is there, nobody is writing, and the file alone is the whole
    /// truth: then, and only then, it may be read as immutable.
    pub(super) fn open(state_dir: &Path, store_dir: &StoreDir) -> Result<Self, DatabaseError> {
        let file = state_dir.join("db/db.sqlite");
        let connection = open_at(&file, "").or_else(|error| {
            let log = state_dir.join("db/db.sqlite-wal");
            match log.try_exists() {
                Ok(false) => open_at(&file, "?immutable=1"),
                _ => Err(error),
            }
        })?;
        Ok(Self { connection, store_dir: store_dir.clone() })
    }

    /// The registrations of `roots` and of everything they refer to.
    pub(super) fn closure(&self, roots: &[StorePath]) -> Result<Vec<PathInfo>, DatabaseError> {
        // One snapshot for the whole walk: between two statements a garbage collection may run.
        let transaction = self.connection.unchecked_transaction()?;
        let mut id_of = transaction.prepare("SELECT id FROM ValidPaths WHERE path = ?")?;
        let mut registration = transaction
            .prepare("SELECT path, hash, narSize, deriver, sigs, ca FROM ValidPaths WHERE id = ?")?;
        let mut references_of = transaction.prepare("SELECT reference FROM Refs WHERE referrer = ?")?;

        let mut queue = VecDeque::new();
        let mut seen = HashSet::new();
        for root in roots {
            let path = self.store_dir.render_path(root);
            let id: Option<i64> = id_of.query_row([&path], |row| row.get(0)).optional()?;
            let id = id.ok_or(DatabaseError::NotValid { path })?;
            if seen.insert(id) {
                queue.push_back(id);
            }
        }
        let mut rows = Vec::new();
        let mut path_of: HashMap<i64, StorePath> = HashMap::new();
        while let Some(id) = queue.pop_front() {
            let row = registration.query_row([id], Row::read)?;
            let references: Vec<i64> =
                references_of.query_map([id], |row| row.get(0))?.collect::<Result<_, _>>()?;
            queue.extend(references.iter().filter(|reference| seen.insert(**reference)));
            path_of.insert(id, self.path(&row.path)?);
            rows.push((id, row, references));
        }
        rows.into_iter()
            .map(|(id, row, references)| {
                // Every reference was queued, and every queued row was read, or the walk has failed before.
                let references = references.iter().map(|reference| path_of[reference].clone()).collect();
                self.info(path_of[&id].clone(), &row, references)
            })
            .collect()
    }

    /// Which of `paths` are valid.
    pub(super) fn valid(&self, paths: &[StorePath]) -> Result<Vec<bool>, DatabaseError> {
        let mut exists = self.connection.prepare("SELECT 1 FROM ValidPaths WHERE path = ?")?;
        paths
            .iter()
            .map(|path| exists.exists([self.store_dir.render_path(path)]).map_err(DatabaseError::from))
            .collect()
    }

    /// The valid derivations that have `path` as an output.
    ///
    /// Nix keeps the outputs of each valid `.drv`. The deriver in a path's registration is only what a cache once said.
    pub(super) fn makers(&self, path: &StorePath) -> Result<Vec<StorePath>, DatabaseError> {
        let mut makers = self.connection.prepare(
            "SELECT ValidPaths.path FROM DerivationOutputs JOIN ValidPaths ON DerivationOutputs.drv = ValidPaths.id \
             WHERE DerivationOutputs.path = ? ORDER BY ValidPaths.path",
        )?;
        let rows = makers.query_map([self.store_dir.render_path(path)], |row| row.get::<_, String>(0))?;
        rows.map(|row| self.path(&row?)).collect()
    }

    fn path(&self, text: &str) -> Result<StorePath, DatabaseError> {
        self.store_dir
            .parse_path(text.as_bytes())
            .map_err(|error| DatabaseError::Damaged { path: text.to_owned(), reason: error.to_string() })
    }

    fn info(
        &self,
        path: StorePath,
        row: &Row,
        references: Vec<StorePath>,
    ) -> Result<PathInfo, DatabaseError> {
        let damaged = |reason: String| DatabaseError::Damaged { path: row.path.clone(), reason };
        Ok(PathInfo {
            nar_hash: NixHash::parse(&row.hash).map_err(|error| damaged(error.to_string()))?,
            nar_size: row
                .nar_size
                .and_then(|size| u64::try_from(size).ok())
                .ok_or_else(|| damaged("it has no NAR size".to_owned()))?,
            references,
            deriver: match row.deriver.as_deref() {
                None | Some("") => None,
                Some(deriver) => Some(self.path(deriver)?),
            },
            signatures: row
                .signatures
                .iter()
                .flat_map(|signatures| signatures.split_whitespace())
                .filter_map(|signature| NixSignature::parse(signature).ok())
                .collect(),
            content_address: match row.content_address.as_deref() {
                None | Some("") => None,
                Some(text) => Some(CAHash::parse(text).map_err(|error| damaged(error.to_string()))?),
            },
            path,
        })
    }
}

/// A row of `ValidPaths` as it is stored.
struct Row {
    path: String,
    hash: String,
    nar_size: Option<i64>,
    deriver: Option<String>,
    signatures: Option<String>,
    content_address: Option<String>,
}

impl Row {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            path: row.get(0)?,
            hash: row.get(1)?,
            nar_size: row.get(2)?,
            deriver: row.get(3)?,
            signatures: row.get(4)?,
            content_address: row.get(5)?,
        })
    }
}

fn open_at(file: &Path, parameters: &str) -> Result<Connection, rusqlite::Error> {
    // SQLite's own escape for the characters that mean something in its URIs (https://sqlite.org/uri.html).
    let escaped = file.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(format!("file:{escaped}{parameters}"), flags)?;
    connection.busy_timeout(BUSY)?;
    // Opening succeeds for anything; the first read is what fails.
    connection.query_row("SELECT EXISTS (SELECT 1 FROM ValidPaths)", [], |_| Ok(()))?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nix's own tables, as far as they are read (`src/libstore/schema.sql`).
    const SCHEMA: &str = "
        CREATE TABLE ValidPaths (id integer primary key, path text unique, hash text, registrationTime integer,
            deriver text, narSize integer, ultimate integer, sigs text, ca text);
        CREATE TABLE Refs (referrer integer, reference integer, primary key (referrer, reference));
        CREATE TABLE DerivationOutputs (drv integer, id text, path text, primary key (drv, id));";

    fn base_name(number: i32) -> String {
        crate::graph::tests::store_path(usize::try_from(number).expect("not negative")).to_basename()
    }

    /// A state directory whose store has `graph`: path `n` refers to the paths in `graph[n]`.
    fn state_dir(graph: &[&[i32]]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("db")).expect("a directory");
        let connection = Connection::open(directory.path().join("db/db.sqlite")).expect("a database");
        connection.execute_batch(SCHEMA).expect("a schema");
        for (number, references) in (0i32..).zip(graph) {
            let path = format!("/nix/store/{}", base_name(number));
            let hash = format!("sha256:{}", "0".repeat(64));
            connection
                .execute(
                    "INSERT INTO ValidPaths VALUES (?, ?, ?, 1, '', 120, 0, 'a:AAAA b:AAAA', '')",
                    (number, path, hash),
                )
                .expect("a row");
            for reference in *references {
                connection.execute("INSERT INTO Refs VALUES (?, ?)", (number, *reference)).expect("a row");
            }
        }
        directory
    }

    #[test]
    fn every_reference_is_kept_however_often_a_path_is_met() {
        // A diamond with a chord and a self-reference: 0 is met from 1, 2 and 3.
        let graph: [&[i32]; 5] = [&[], &[0, 1], &[0, 1], &[2, 1, 0], &[]];
        let state = state_dir(&graph);
        let store_dir = StoreDir::default();
        let database = Database::open(state.path(), &store_dir).expect("a database");
        let infos = database.closure(&[crate::graph::tests::store_path(3)]).expect("a closure");
        assert_eq!(infos.len(), 4);
        for info in infos {
            let number = (0..4).find(|number| base_name(*number) == info.base_name()).expect("a member");
            let mut references: Vec<String> = info.references.iter().map(StorePath::to_basename).collect();
            let mut expected: Vec<String> = graph[usize::try_from(number).expect("not negative")]
                .iter()
                .map(|number| base_name(*number))
                .collect();
            references.sort();
            expected.sort();
            assert_eq!(references, expected);
            assert_eq!(info.signatures.len(), 2);
        }
    }

    #[test]
    fn the_derivations_of_an_output_are_those_that_are_valid() {
        let state = state_dir(&[&[], &[]]);
        let connection = Connection::open(state.path().join("db/db.sqlite")).expect("a database");
        let output = crate::graph::tests::store_path(7);
        let row = (1, "out", StoreDir::default().render_path(&output));
        connection.execute("INSERT INTO DerivationOutputs VALUES (?, ?, ?)", row).expect("a row");
        let database = Database::open(state.path(), &StoreDir::default()).expect("a database");
        assert_eq!(database.makers(&output).expect("makers"), [crate::graph::tests::store_path(1)]);
        assert_eq!(database.makers(&crate::graph::tests::store_path(0)).expect("makers"), []);
    }

    #[test]
    fn what_is_not_valid_is_named() {
        let state = state_dir(&[&[]]);
        let database = Database::open(state.path(), &StoreDir::default()).expect("a database");
        let missing = crate::graph::tests::store_path(7);
        let error = database.closure(std::slice::from_ref(&missing)).expect_err("not valid");
        assert!(matches!(error, DatabaseError::NotValid { path } if path.ends_with(&base_name(7))));
        assert_eq!(
            database.valid(&[missing, crate::graph::tests::store_path(0)]).expect("an answer"),
            [false, true]
        );
    }

    #[test]
    fn a_file_that_is_no_database_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(Database::open(directory.path(), &StoreDir::default()).is_err());
        std::fs::create_dir(directory.path().join("db")).expect("a directory");
        std::fs::write(directory.path().join("db/db.sqlite"), "hello").expect("a file");
        assert!(Database::open(directory.path(), &StoreDir::default()).is_err());
    }
}
