//! A row as bytes, for the log. Each cell is a tag and what it takes; numbers are LEB128. Pure; fuzzed.

use std::borrow::Cow;

use crate::cell::Cell;

const NULL: u8 = 0;
const NUMBER: u8 = 1;
const TEXT: u8 = 2;
const MANY: u8 = 3;

/// The bytes are no row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a row")]
pub struct NotARow;

/// Writes `cells` behind `out`.
pub fn encode(cells: &[Cell<'_>], out: &mut Vec<u8>) {
    for cell in cells {
        match cell {
            Cell::Null => out.push(NULL),
            Cell::Number(number) => {
                out.push(NUMBER);
                varint(*number, out);
            }
            Cell::Text(text) => {
                out.push(TEXT);
                varint(text.len() as u64, out);
                out.extend(text.as_bytes());
            }
            Cell::Many(parts) => {
                out.push(MANY);
                varint(parts.len() as u64, out);
                encode(parts, out);
            }
        }
    }
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads all cells of `bytes`.
///
/// # Errors
/// They are no cells, or there is something behind them.
pub fn decode(mut bytes: &[u8]) -> Result<Vec<Cell<'_>>, NotARow> {
    let mut cells = Vec::new();
    while !bytes.is_empty() {
        cells.push(cell(&mut bytes, true)?);
    }
    Ok(cells)
}

fn cell<'a>(bytes: &mut &'a [u8], outermost: bool) -> Result<Cell<'a>, NotARow> {
    match take(bytes, 1)? {
        [NULL] => Ok(Cell::Null),
        [NUMBER] => Ok(Cell::Number(number(bytes)?)),
        [TEXT] => {
            let length = number(bytes)?;
            let text = take(bytes, usize::try_from(length).map_err(|_| NotARow)?)?;
            Ok(Cell::Text(Cow::Borrowed(std::str::from_utf8(text).map_err(|_| NotARow)?)))
        }
        [MANY] if outermost => {
            let count = number(bytes)?;
            // Each takes a byte at least: no count makes us reserve more than was read.
            if count > bytes.len() as u64 {
                return Err(NotARow);
            }
            Ok(Cell::Many((0..count).map(|_| cell(bytes, false)).collect::<Result<_, _>>()?))
        }
        _ => Err(NotARow),
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], NotARow> {
    let (front, rest) = bytes.split_at_checked(length).ok_or(NotARow)?;
    *bytes = rest;
    Ok(front)
}

fn number(bytes: &mut &[u8]) -> Result<u64, NotARow> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part {
            return Err(NotARow);
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(NotARow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_come_back_and_no_part_of_them_is_taken_for_all() {
        let cells = vec![
            Cell::Null,
            Cell::number(0u64),
            Cell::number(127u64),
            Cell::number(128u64),
            Cell::Number(u64::MAX),
            Cell::text(""),
            Cell::text("läßt"),
            Cell::Many(vec![]),
            Cell::Many(vec![Cell::text("a"), Cell::number(7u8)]),
        ];
        let mut bytes = Vec::new();
        encode(&cells, &mut bytes);
        assert_eq!(decode(&bytes), Ok(cells.clone()));
        for cut in 0..bytes.len() {
            assert_ne!(decode(&bytes[..cut]), Ok(cells.clone()), "{cut}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            &[4][..],
            &[NUMBER],
            &[NUMBER, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[TEXT, 2, b'a'],
            &[TEXT, 1, 0xff],
            &[MANY, 200],
            &[MANY, 1, MANY, 0],
        ] {
            assert_eq!(decode(bad), Err(NotARow), "{bad:?}");
        }
    }
}
