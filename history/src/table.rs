//! Parquet files of [`columns`]: a row group is collected column by column in small vectors and written at once, and
//! read a few hundred rows at a time, so that neither side ever holds a file. Statistics of `time` for each row group
//! let a reader pass over it.
//!
//! Every column is optional, and so is a list or map as a whole; elements and their fields never are. So the levels of
//! all columns of many are the same: 0 nothing, 1 empty, 2 an element.

use std::{io::Write, sync::Arc};

use parquet::{
    basic::{Compression, ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel},
    data_type::{BoolType, ByteArray, ByteArrayType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
        writer::SerializedFileWriter,
    },
    schema::types::{Type, TypePtr},
};

use crate::{
    SCHEMA_VERSION,
    cell::{Cell, Kind, Leaf, Shape},
    columns,
};

mod read;

pub use read::{Reader, Summary};

/// Rows of a row group: what is in memory while a file is written.
pub const GROUP_ROWS: usize = 8192;
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
