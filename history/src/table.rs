//! Parquet files of [`columns`]: a row group is collected column by column in small vectors and written at once, and
//! read a few hundred rows at a time, so that neither side ever holds a file. Statistics of `time` for each row group
//! let a reader pass over it.
//!
//! Every column is optional, and so is a list or map as a whole; elements and their fields never are. So the levels of
//! all columns of many are the same: 0 nothing, 1 empty, 2 an element.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use flows::FlowRecord;
use parquet::{
    basic::{Compression, ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel},
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
        reader::{FileReader, SerializedFileReader},
        statistics::Statistics,
        writer::SerializedFileWriter,
    },
    schema::types::{Type, TypePtr},
};

use crate::{
    Error, SCHEMA_VERSION,
    cell::{Cell, Kind, Leaf, Shape},
    columns,
    pool::Pools,
};

/// Rows of a row group: what is in memory while a file is written.
pub const GROUP_ROWS: usize = 8192;
/// Rows that are read at a time.
const READ_ROWS: usize = 512;
/// Name of the version in the file's metadata.
pub const VERSION_KEY: &str = "bulkhead.history.version";

/// The schema of a file.
///
/// # Panics
/// Never: the tables in `columns` are right, which a test sees.
pub fn schema() -> TypePtr {
    let fields = columns::all().iter().map(|column| Arc::new(field(&column.name, column.kind))).collect();
    let schema = Type::group_type_builder("flow").with_fields(fields).build();
    Arc::new(schema.expect("columns have names and fields"))
}

fn field(name: &str, kind: Kind) -> Type {
    match kind {
        Kind::One(one) => leaf(name, one, Repetition::OPTIONAL),
        Kind::Many(shape, fields) => {
            let mut fields: Vec<TypePtr> =
                fields.iter().map(|(name, one)| Arc::new(leaf(name, *one, Repetition::REQUIRED))).collect();
            let (repeated, logical) = match shape {
                Shape::List => ("list", LogicalType::List),
                Shape::Map => ("key_value", LogicalType::Map),
                Shape::Structs => {
                    fields = vec![Arc::new(group("element", Repetition::REQUIRED, None, fields))];
                    ("list", LogicalType::List)
                }
            };
            let inner = Arc::new(group(repeated, Repetition::REPEATED, None, fields));
            group(name, Repetition::OPTIONAL, Some(logical), vec![inner])
        }
    }
}

fn group(name: &str, repetition: Repetition, logical: Option<LogicalType>, fields: Vec<TypePtr>) -> Type {
    let builder = Type::group_type_builder(name).with_repetition(repetition).with_logical_type(logical);
    builder.with_fields(fields).build().expect("a group of our tables is right")
}

fn leaf(name: &str, leaf: Leaf, repetition: Repetition) -> Type {
    let (physical, logical) = match leaf {
        Leaf::Bool => (Physical::BOOLEAN, None),
        Leaf::Uint(64) => (Physical::INT64, Some(LogicalType::Integer { bit_width: 64, is_signed: false })),
        Leaf::Uint(bits) => {
            (Physical::INT32, Some(LogicalType::Integer { bit_width: bits.cast_signed(), is_signed: false }))
        }
        Leaf::Time => {
            (Physical::INT64, Some(LogicalType::Timestamp { is_adjusted_to_u_t_c: true, unit: TimeUnit::NANOS }))
        }
        Leaf::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
    };
    let builder = Type::primitive_type_builder(name, physical).with_repetition(repetition);
    builder.with_converted_type(ConvertedType::NONE).with_logical_type(logical).build().expect("a leaf is right")
}

/// Values of one leaf, with their levels.
#[derive(Debug)]
struct Values {
    data: Data,
    definition: Vec<i16>,
    /// Empty for a column of single values.
    repetition: Vec<i16>,
}

#[derive(Debug)]
enum Data {
    Bools(Vec<bool>),
    Ints(Vec<i32>),
    Longs(Vec<i64>),
    /// One text behind the other, and where each ends.
    Texts(Vec<u8>, Vec<usize>),
}

impl Data {
    fn of(leaf: Leaf) -> Self {
        match leaf {
            Leaf::Bool => Self::Bools(Vec::new()),
            Leaf::Uint(64) | Leaf::Time => Self::Longs(Vec::new()),
            Leaf::Uint(_) => Self::Ints(Vec::new()),
            Leaf::Text => Self::Texts(Vec::new(), Vec::new()),
        }
    }

    /// False: the cell is not of this kind.
    fn push(&mut self, cell: &Cell<'_>) -> bool {
        match (self, cell) {
            (Self::Bools(all), Cell::Number(number)) => all.push(*number != 0),
            // The bits: files say that they are unsigned.
            (Self::Ints(all), Cell::Number(number)) => all.push((*number as u32).cast_signed()),
            (Self::Longs(all), Cell::Number(number)) => all.push(number.cast_signed()),
            (Self::Texts(bytes, ends), Cell::Text(text)) => {
                bytes.extend(text.as_bytes());
                ends.push(bytes.len());
            }
            _ => return false,
        }
        true
    }
}

fn leaves(kind: Kind) -> Vec<Leaf> {
    match kind {
        Kind::One(leaf) => vec![leaf],
        Kind::Many(_, fields) => fields.iter().map(|(_, leaf)| *leaf).collect(),
    }
}

/// Writes a file.
pub struct Writer<W: Write + Send> {
    file: SerializedFileWriter<W>,
    /// One list of leaves for each column.
    group: Vec<Vec<Values>>,
    rows: usize,
}

impl<W: Write + Send> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("rows", &self.rows).finish_non_exhaustive()
    }
}

fn empty_group() -> Vec<Vec<Values>> {
    let values = |leaf| Values { data: Data::of(leaf), definition: Vec::new(), repetition: Vec::new() };
    columns::all().iter().map(|column| leaves(column.kind).into_iter().map(values).collect()).collect()
}

impl<W: Write + Send> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// The disk says no.
    pub fn new(to: W) -> Result<Self, ParquetError> {
        let version = KeyValue::new(VERSION_KEY.to_owned(), SCHEMA_VERSION.to_string());
        let properties = WriterProperties::builder()
            .set_created_by("bulkhead".to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_key_value_metadata(Some(vec![version]))
            .build();
        let file = SerializedFileWriter::new(to, schema(), Arc::new(properties))?;
        Ok(Self { file, group: empty_group(), rows: 0 })
    }

    /// Adds a row, in the order of the columns.
    ///
    /// # Errors
    /// The disk says no.
    pub fn push(&mut self, cells: &[Cell<'_>]) -> Result<(), ParquetError> {
        for ((column, values), cell) in columns::all().iter().zip(&mut self.group).zip(cells) {
            let fits = match (column.kind, cell, &mut **values) {
                (Kind::One(_), Cell::Null, [values]) => {
                    values.definition.push(0);
                    true
                }
                (Kind::One(_), cell, [values]) => {
                    values.definition.push(1);
                    values.data.push(cell)
                }
                (Kind::Many(..), Cell::Null, all) => {
                    all.iter_mut().for_each(|values| values.level(0, 0));
                    true
                }
                (Kind::Many(..), Cell::Many(parts), all) if parts.is_empty() => {
                    all.iter_mut().for_each(|values| values.level(1, 0));
                    true
                }
                (Kind::Many(..), Cell::Many(parts), all) => {
                    let arity = all.len();
                    parts.iter().enumerate().all(|(at, part)| {
                        let values = &mut all[at % arity];
                        values.level(2, i16::from(at >= arity));
                        values.data.push(part)
                    }) && parts.len() % arity == 0
                }
                _ => false,
            };
            if !fits {
                return Err(ParquetError::General(format!("column {} cannot hold {cell:?}", column.name)));
            }
        }
        self.rows += 1;
        if self.rows == GROUP_ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), ParquetError> {
        if self.rows == 0 {
            return Ok(());
        }
        self.rows = 0;
        let mut group = self.file.next_row_group()?;
        for values in std::mem::replace(&mut self.group, empty_group()).into_iter().flatten() {
            let Values { data, definition, repetition } = values;
            let levels = (Some(&*definition), (!repetition.is_empty()).then_some(&*repetition));
            let mut column = group.next_column()?.ok_or_else(|| ParquetError::General("too few columns".into()))?;
            match data {
                Data::Bools(all) => column.typed::<BoolType>().write_batch(&all, levels.0, levels.1)?,
                Data::Ints(all) => column.typed::<Int32Type>().write_batch(&all, levels.0, levels.1)?,
                Data::Longs(all) => column.typed::<Int64Type>().write_batch(&all, levels.0, levels.1)?,
                Data::Texts(bytes, ends) => {
                    let bytes = bytes::Bytes::from(bytes);
                    let starts = std::iter::once(0).chain(ends.iter().copied());
                    let all: Vec<ByteArray> =
                        starts.zip(&ends).map(|(start, &end)| ByteArray::from(bytes.slice(start..end))).collect();
                    column.typed::<ByteArrayType>().write_batch(&all, levels.0, levels.1)?
                }
            };
            column.close()?;
        }
        group.close()?;
        Ok(())
    }

    /// Writes what is left, and the end of the file.
    ///
    /// # Errors
    /// The disk says no.
    pub fn finish(mut self) -> Result<W, ParquetError> {
        self.flush()?;
        self.file.into_inner()
    }
}

impl Values {
    fn level(&mut self, definition: i16, repetition: i16) {
        self.definition.push(definition);
        self.repetition.push(repetition);
    }
}

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
            let mut leaves = Vec::new();
            for (reader, leaf) in readers.iter_mut().zip(self::leaves(column.kind)) {
                leaves.push(read_leaf(reader, leaf)?);
            }
            let cells = match column.kind {
                Kind::One(_) => leaves.pop().unwrap_or_default().single()?,
                Kind::Many(..) => many(leaves)?,
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
