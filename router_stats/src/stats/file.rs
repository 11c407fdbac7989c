//! The statistics file, version 1.
//!
//! A safetensors file: one F64 tensor per table, and as `__metadata__`
//! `format` = `router-stats`, `version` = `1`, `provenance` (JSON) and for each
//! table `merge.<name>` = `sum` or `max`. NumPy reads it through
//! `safetensors.numpy`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use safetensors::Dtype;
use sha2::{Digest, Sha256};

use super::{Merge, Provenance, Stats, Table};
use crate::checkpoint::header::{self, Header, Malformed};
use crate::checkpoint::hex;
use crate::checkpoint::map::Map;
use crate::observer::{block, expert, routing, span, SEQUENCES, TOKENS};
use crate::{atomic, Error, Result};

const FORMAT: &str = "router-stats";
const VERSION: u32 = 1;

/// Values converted at a time.
const CHUNK: usize = 8192;

impl Stats {
    /// Reads and validates a statistics file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::StatsVersion`] for another version;
    /// [`Error::StatsFile`] if it is no statistics file, is cut short, has
    /// tables whose shapes contradict its provenance, or values that are not
    /// finite or negative counts.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let unusable = |reason| Error::StatsFile {
            path: path.to_path_buf(),
            reason,
        };
        let map = Map::open(path)?;
        let header =
            header::parse(map.bytes()).map_err(|malformed| unusable(describe(malformed)))?;
        let metadata = |key: &str| header.metadata.get(key).map(String::as_str);
        if metadata("format") != Some(FORMAT) {
            let found = metadata("format").unwrap_or("none");
            return Err(unusable(format!(
                "expected format `{FORMAT}`, found `{found}`"
            )));
        }
        match metadata("version") {
            Some(version) if version == VERSION.to_string() => {}
            other => {
                return Err(Error::StatsVersion {
                    path: path.to_path_buf(),
                    found: other.unwrap_or("none").to_owned(),
                    supported: VERSION,
                });
            }
        }
        let provenance: Provenance = serde_json::from_str(metadata("provenance").unwrap_or(""))
            .map_err(|error| unusable(format!("provenance: {error}")))?;
        let stats = Self {
            provenance,
            tables: tables(&header, &map).map_err(unusable)?,
        };
        stats.check().map_err(unusable)?;
        Ok(stats)
    }

    /// Writes a statistics file, replacing what is at `path` only once it is
    /// complete. Equal statistics give equal bytes.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::StatsFile`] if [`read`](Self::read) would refuse
    /// the result.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let unusable = |reason| Error::StatsFile {
            path: path.to_path_buf(),
            reason,
        };
        self.check().map_err(unusable)?;
        atomic::write(path, |file| self.encode(file))
    }

    /// Hex SHA-256 of the statistics' file.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        // Hashing into memory cannot fail.
        let _ = self.encode(&mut hash);
        hex(&hash.finalize())
    }

    fn encode(&self, out: &mut impl Write) -> io::Result<()> {
        let mut metadata = BTreeMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("version".to_owned(), VERSION.to_string()),
            (
                "provenance".to_owned(),
                serde_json::to_string(&self.provenance)?,
            ),
        ]);
        metadata.extend(
            self.tables
                .iter()
                .map(|(name, table)| (format!("merge.{name}"), table.merge.name().to_owned())),
        );
        let entries = self
            .tables
            .iter()
            .map(|(name, table)| (&name[..], Dtype::F64, &table.shape[..]));
        out.write_all(&header::encode(&metadata, entries))?;
        let mut bytes = Vec::with_capacity(CHUNK * 8);
        for values in self
            .tables
            .values()
            .flat_map(|table| table.values.chunks(CHUNK))
        {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            out.write_all(&bytes)?;
        }
        Ok(())
    }

    /// What makes these statistics unusable, if anything.
    fn check(&self) -> Result<(), String> {
        self.provenance.check()?;
        for (name, table) in &self.tables {
            let expected = shape(name, &self.provenance);
            if table.shape.iter().product::<usize>() != table.values.len() {
                let (shape, values) = (&table.shape, table.values.len());
                return Err(format!(
                    "table `{name}`: {shape:?} does not hold {values} values"
                ));
            }
            let domains = self.provenance.domains.len();
            let fits = match &expected {
                Some(expected) => *expected == table.shape,
                None => table.shape.first() == Some(&domains),
            };
            if !fits {
                let expected = expected.unwrap_or_else(|| vec![domains]);
                return Err(format!(
                    "table `{name}`: expected shape {expected:?} as its provenance says, found {:?}",
                    table.shape
                ));
            }
            let least = if is_count(name) { 0.0 } else { f64::MIN };
            if let Some(index) = table
                .values
                .iter()
                .position(|v| !(least..=f64::MAX).contains(v))
            {
                let kind = if is_count(name) {
                    "counts"
                } else {
                    "finite numbers"
                };
                let value = table.values[index];
                return Err(format!(
                    "table `{name}`: expected {kind}, found {value} at entry {index}"
                ));
            }
        }
        Ok(())
    }
}

fn tables(header: &Header, map: &Map) -> Result<BTreeMap<String, Table>, String> {
    let mut tables = BTreeMap::new();
    for (name, info) in &header.tensors {
        if info.dtype != Dtype::F64 {
            return Err(format!(
                "table `{name}`: expected dtype F64, found {}",
                info.dtype
            ));
        }
        let key = format!("merge.{name}");
        let kind = header.metadata.get(&key).map_or("none", String::as_str);
        let Some(merge) = Merge::from_name(kind) else {
            return Err(format!("`{key}`: expected `sum` or `max`, found `{kind}`"));
        };
        let (start, end) = info.data_offsets;
        let chunks = map.bytes()[start..end].as_chunks::<8>().0;
        let values = chunks
            .iter()
            .map(|bytes| f64::from_le_bytes(*bytes))
            .collect();
        map.release(start..end);
        tables.insert(
            name.clone(),
            Table {
                shape: info.shape.clone(),
                values,
                merge,
            },
        );
    }
    Ok(tables)
}

fn describe(malformed: Malformed) -> String {
    match malformed {
        Malformed::Header(reason) => reason,
        Malformed::Truncated {
            tensor,
            expected,
            found,
            ..
        } => {
            format!("table `{tensor}` is cut short: expected {expected} bytes, found {found}")
        }
    }
}

/// Shape of the table an observer calls `name`; `None` for names that this
/// build has no observer for.
fn shape(name: &str, provenance: &Provenance) -> Option<Vec<usize>> {
    let (domains, layers) = (provenance.domains.len(), provenance.experts.len());
    let experts = provenance.max_experts();
    let inner = match name {
        TOKENS | SEQUENCES => vec![],
        routing::COUNT | routing::GATE | routing::GATE_SQ | routing::SOFT_GATE => {
            vec![layers, experts]
        }
        expert::NORM | expert::NORM_SQ | expert::GATED_NORM | expert::GATED_NORM_SQ => {
            vec![layers, experts]
        }
        expert::MAX => vec![layers, experts],
        expert::OUTPUT => vec![layers, experts, provenance.hidden],
        routing::PAIRS => vec![layers, experts, experts],
        block::COS | block::ANGLE => vec![layers, 3],
        span::ANGLE => vec![layers + 1, layers + 1],
        _ => return None,
    };
    Some([&[domains][..], &inner].concat())
}

/// Whether the table called `name` counts something.
fn is_count(name: &str) -> bool {
    [TOKENS, SEQUENCES, routing::COUNT, routing::PAIRS].contains(&name)
}
