//! Identities for people.

use std::io;

use super::{
    out::Out,
    table::{Item, Table},
    text::or_dash,
};
use crate::view::{identity::Identity, labels_text};

/// Prints a list.
pub(crate) fn list(out: &mut Out, identities: &[Identity]) -> io::Result<()> {
    let mut table = Table::new(["IDENTITY", "NAMESPACE", "PODS", "HERE", "ACCOUNT", "LABELS"]).right([0, 2, 3]);
    for identity in identities {
        if !identity.reserved_name.is_empty() {
            let name = format!("reserved: {}", identity.reserved_name);
            let dash = || Item::from("-");
            table.row([Item::from(identity.number.to_string()), dash(), dash(), dash(), dash(), Item::from(name)]);
            continue;
        }
        table.row([
            Item::from(identity.number.to_string()),
            Item::from(&identity.namespace),
            Item::from(identity.pods.to_string()),
            Item::from(identity.local_pods.to_string()),
            Item::from(or_dash(&identity.service_account)),
            Item::from(or_dash(&labels_text(&identity.labels))),
        ]);
    }
    out.table(&table, "no identities: no pod is known")
}
