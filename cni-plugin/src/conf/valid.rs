//! GC's list of attachments that are in use.
//!
//! All others of the network go, so a list that is not understood to its last entry stops the GC.

use proto::bulkhead::cni::v1::AttachmentId;

use super::ConfError;
use crate::{
    args::{ID_RULE, ifname_fault, is_id},
    json::Field,
};

/// The specification's key, and the one that libcni sent first and still sends beside it
/// (containernetworking/cni pull request 1101).
const KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

/// The list. None where both keys are missing, as libcni has it when its caller gave no arguments;
/// `null` is what it writes for an empty list.
pub(super) fn attachments(root: &Field<'_>) -> Result<Option<Vec<AttachmentId>>, ConfError> {
    let entries = root.entries()?;
    for wanted in KEYS {
        if let Some((_, field)) = entries.iter().find(|(key, _)| *key == wanted) {
            if field.is_null() {
                return Ok(Some(Vec::new()));
            }
            return field.list()?.iter().map(attachment).collect::<Result<_, _>>().map(Some);
        }
    }
    Ok(None)
}

fn attachment(entry: &Field<'_>) -> Result<AttachmentId, ConfError> {
    let text = |key: &'static str| entry.get(key)?.ok_or_else(|| ConfError::invalid(entry, format!("must have {key}")));
    let container_id = text("containerID")?;
    if !is_id(container_id.str()?) {
        return Err(ConfError::invalid(&container_id, ID_RULE));
    }
    let ifname = text("ifname")?;
    if let Some(reason) = ifname_fault(ifname.str()?) {
        return Err(ConfError::invalid(&ifname, reason));
    }
    Ok(AttachmentId { container_id: container_id.string()?, ifname: ifname.string()? })
}
