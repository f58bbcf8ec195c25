//! The way back: row groups of a file as rows.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use flows::FlowRecord;
use parquet::{
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::DataType,
    errors::ParquetError,
    file::{
        reader::{FileReader, SerializedFileReader},
        statistics::Statistics,
    },
};

use super::{VERSION_KEY, leaves, schema};
use crate::{
    Error, SCHEMA_VERSION,
    cell::{Cell, Kind, Leaf},
    columns,
    pool::Pools,
};

/// Rows that are read at a time.
const READ_ROWS: usize = 512;

/// Reads a file, row group by row group.
pub struct Reader {
    file: SerializedFileReader<File>,
    path: PathBuf,
    /// For each of our columns, its leaves in the file.
    places: Vec<Option<Vec<usize>>>,
    /// The next row group.
    group: usize,
    open: Option<Vec<Option<Vec<ColumnReader>>>>,
    /// Rows that were read and not handed out, in reverse.
    rows: Vec<Vec<Cell<'static>>>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("path", &self.path).field("group", &self.group).finish_non_exhaustive()
    }
}

/// What a file says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Rows.
    pub rows: u64,
    /// Least and greatest time.
    pub times: Option<(u64, u64)>,
}

impl Reader {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be read, is no Parquet file, or of another version.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::disk(path))?;
        let file = SerializedFileReader::new(file).map_err(|error| Error::damaged(path, error))?;
        let metadata = file.metadata().file_metadata();
        let version = metadata.key_value_metadata().and_then(|all| all.iter().find(|it| it.key == VERSION_KEY));
        let version = version.and_then(|it| it.value.clone()).unwrap_or_else(|| "none".to_owned());
        if version != SCHEMA_VERSION.to_string() {
            return Err(Error::Version { path: path.to_owned(), found: version });
        }
        let descriptor = metadata.schema_descr();
        let ours = schema();
        let place = |(at, column): (usize, &columns::Column)| {
            let leaves: Vec<usize> = (0..descriptor.num_columns())
                .filter(|leaf| descriptor.get_column_root(*leaf).name() == column.name)
                .collect();
            let Some(first) = leaves.first() else { return Ok(None) };
            // What is of another kind would be misread.
            if descriptor.get_column_root(*first) == &*ours.get_fields()[at] {
                Ok(Some(leaves))
            } else {
                Err(Error::damaged(path, format!("column {} is of another kind", column.name)))
            }
        };
        let places = columns::all().iter().enumerate().map(place).collect::<Result<_, _>>()?;
        Ok(Self { file, path: path.to_owned(), places, group: 0, open: None, rows: Vec::new() })
    }

    /// What it says of itself.
    pub fn summary(&self) -> Summary {
        let metadata = self.file.metadata();
        let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        let groups: Option<Vec<(u64, u64)>> = (0..metadata.num_row_groups()).map(|group| self.times(group)).collect();
        let times = groups.and_then(|all| all.into_iter().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))));
        Summary { rows, times }
    }

    /// Least and greatest time of a row group, if it says so.
    fn times(&self, group: usize) -> Option<(u64, u64)> {
        let leaf = *self.places[columns::TIME].as_ref()?.first()?;
        match self.file.metadata().row_group(group).column(leaf).statistics()? {
            Statistics::Int64(times) => Some((times.min_opt()?.cast_unsigned(), times.max_opt()?.cast_unsigned())),
            _ => None,
        }
    }

    /// The next row, in the order of our columns. Row groups that have nothing between `since` and `until`, nanoseconds
    /// since 1970, are passed over as a whole; of others every row comes.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn next(&mut self, since: u64, until: u64) -> Result<Option<Vec<Cell<'static>>>, Error> {
        loop {
            if let Some(row) = self.rows.pop() {
                return Ok(Some(row));
            }
            if self.open.is_none() {
                if self.group == self.file.metadata().num_row_groups() {
                    return Ok(None);
                }
                self.group += 1;
                let misses = |(least, greatest): (u64, u64)| greatest < since || least > until;
                if self.times(self.group - 1).is_some_and(misses) {
                    continue;
                }
                self.open = Some(self.columns(self.group - 1).map_err(|error| Error::damaged(&self.path, error))?);
            }
            self.read().map_err(|error| Error::damaged(&self.path, error))?;
            if self.rows.is_empty() {
                self.open = None;
            }
        }
    }

    /// The next record; see [`Reader::next`].
    ///
    /// # Errors
    /// It cannot be read, or a row is no record.
    pub fn record(&mut self, since: u64, until: u64, pools: &mut Pools) -> Result<Option<FlowRecord>, Error> {
        let Some(row) = self.next(since, until)? else { return Ok(None) };
        columns::record(&row, pools).map(Some).map_err(|wrong| Error::damaged(&self.path, wrong))
    }

    fn columns(&self, group: usize) -> Result<Vec<Option<Vec<ColumnReader>>>, ParquetError> {
        let group = self.file.get_row_group(group)?;
        let open = |place: &Option<Vec<usize>>| {
            let readers =
                place.as_ref().map(|leaves| leaves.iter().map(|leaf| group.get_column_reader(*leaf)).collect());
            readers.transpose()
        };
        self.places.iter().map(open).collect()
    }

    /// Reads some rows of the open row group.
    fn read(&mut self) -> Result<(), ParquetError> {
        let Some(columns) = &mut self.open else { return Ok(()) };
        let mut rows: Vec<Vec<Cell<'static>>> = Vec::new();
        for (at, (column, readers)) in columns::all().iter().zip(columns).enumerate() {
            let Some(readers) = readers else { continue };
            let mut parts = Vec::new();
            for (reader, leaf) in readers.iter_mut().zip(leaves(column.kind)) {
                parts.push(read_leaf(reader, leaf)?);
            }
            let cells = match column.kind {
                Kind::One(_) => parts.pop().unwrap_or_default().single()?,
                Kind::Many(..) => many(parts)?,
            };
            if at == 0 {
                rows = vec![vec![Cell::Null; columns::all().len()]; cells.len()];
            }
            if cells.len() != rows.len() {
                return Err(ParquetError::General(format!("column {} has another number of rows", column.name)));
            }
            for (row, cell) in rows.iter_mut().zip(cells) {
                row[at] = cell;
            }
        }
        rows.reverse();
        self.rows = rows;
        Ok(())
    }
}

/// One leaf of some rows: values that are there, and levels.
#[derive(Default)]
struct Part {
    cells: std::vec::IntoIter<Cell<'static>>,
    definition: Vec<i16>,
    repetition: Vec<i16>,
}

impl Part {
    fn value(&mut self) -> Result<Cell<'static>, ParquetError> {
        self.cells.next().ok_or_else(|| ParquetError::General("too few values".into()))
    }

    fn single(mut self) -> Result<Vec<Cell<'static>>, ParquetError> {
        let levels = std::mem::take(&mut self.definition);
        levels.into_iter().map(|level| if level == 0 { Ok(Cell::Null) } else { self.value() }).collect()
    }
}

fn many(mut leaves: Vec<Part>) -> Result<Vec<Cell<'static>>, ParquetError> {
    let mut rows = Vec::new();
    let Some(first) = leaves.first_mut() else { return Ok(rows) };
    let levels: Vec<(i16, i16)> =
        std::mem::take(&mut first.definition).into_iter().zip(std::mem::take(&mut first.repetition)).collect();
    for (definition, repetition) in levels {
        if repetition == 0 {
            rows.push(if definition == 0 { Cell::Null } else { Cell::Many(Vec::new()) });
        }
        if definition == 2 {
            let Some(Cell::Many(parts)) = rows.last_mut() else {
                return Err(ParquetError::General("an element without a list".into()));
            };
            for leaf in &mut leaves {
                parts.push(leaf.value()?);
            }
        }
    }
    Ok(rows)
}

fn read_leaf(reader: &mut ColumnReader, leaf: Leaf) -> Result<Part, ParquetError> {
    let number = |it: u64| Cell::Number(it);
    match reader {
        ColumnReader::BoolColumnReader(it) => part(it, |it| Ok(number(it.into()))),
        ColumnReader::Int32ColumnReader(it) => part(it, |it| Ok(number(it.cast_unsigned().into()))),
        ColumnReader::Int64ColumnReader(it) => part(it, |it| Ok(number(it.cast_unsigned()))),
        ColumnReader::ByteArrayColumnReader(it) => part(it, |it| Ok(Cell::Text(it.as_utf8()?.to_owned().into()))),
        _ => Err(ParquetError::General(format!("no column of ours: {leaf:?}"))),
    }
}

fn part<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    cell: impl Fn(T::T) -> Result<Cell<'static>, ParquetError>,
) -> Result<Part, ParquetError> {
    let (mut values, mut definition, mut repetition) = (Vec::new(), Vec::new(), Vec::new());
    reader.read_records(READ_ROWS, Some(&mut definition), Some(&mut repetition), &mut values)?;
    let cells: Vec<_> = values.into_iter().map(cell).collect::<Result<_, _>>()?;
    Ok(Part { cells: cells.into_iter(), definition, repetition })
}
