//! Rows for clients of the flow API, in the columns that they know: programs of other versions may know others.

use std::sync::Arc;

use flows::{FlowRecord, observer::convert::Rows};

use crate::{cell::Cell, codec, columns};

/// What a client has asked for: the places of its columns among ours.
#[derive(Debug)]
struct Chosen(Vec<Option<usize>>);

impl Rows for Chosen {
    fn cells(&self, record: &FlowRecord) -> Vec<u8> {
        let row = columns::row(record);
        let mut bytes = Vec::new();
        for place in &self.0 {
            let cell = place.map_or(&Cell::Null, |place| &row[place]);
            codec::encode(std::slice::from_ref(cell), &mut bytes);
        }
        bytes
    }
}

/// Makes rows of columns with these names; of one that is none here each cell is empty.
pub fn of(names: &[String]) -> Arc<dyn Rows> {
    let place = |name: &String| columns::all().iter().position(|column| *column.name == **name);
    Arc::new(Chosen(names.iter().map(place).collect()))
}

/// The names of all columns.
pub fn names() -> Vec<String> {
    columns::all().iter().map(|column| column.name.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_its_own_columns_in_its_own_order() {
        let record = flows::fixture::record(&flows::fixture::denied());
        let all = of(&names()).cells(&record);
        assert_eq!(codec::decode(&all).unwrap(), columns::row(&record));
        let names = ["verdict", "of_tomorrow", "uid"].map(str::to_owned);
        let cells = of(&names).cells(&record);
        let cells = codec::decode(&cells).unwrap();
        assert_eq!(cells[0].as_text(), Some("dropped"));
        assert_eq!((&cells[1], cells[2].as_text()), (&Cell::Null, Some(&*record.uuid().to_string())));
        assert_eq!(cells.len(), 3);
    }
}
