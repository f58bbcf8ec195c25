//! Which kinds of links the kernel can make, found out without making one.

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
};

use super::{
    NetError, Node,
    link::delete_link,
    netlink::{Mode, Request},
};

/// An address that no link can have: that of a group (IEEE 802, the lowest bit of the first octet).
const GROUP: [u8; 6] = [1, 0, 0, 0, 0, 1];
/// What a link would be called if the kernel made it all the same.
const NAME: &str = "bulkhead_probe";

/// Whether the kernel makes links of a kind. It is asked for one with an address that none can have: who knows the kind
/// looks at the address and refuses that, who does not says so (`rtnl_newlink`, net/core/rtnetlink.c, which loads the
/// kind's module first).
pub(super) async fn is_known(node: &Node, kind: InfoKind) -> Result<bool, NetError> {
    let object = format!("a link of kind {kind}");
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(NAME.to_owned()),
        LinkAttribute::Address(GROUP.to_vec()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]),
    ];
    let message = RouteNetlinkMessage::NewLink(message);
    let asked = node.netlink().change(Request { message, mode: Mode::Create, action: "ask for", object }).await;
    match asked {
        Ok(()) => delete_link(node, NAME).await.map(|()| true),
        Err(NetError::Refused { source, .. }) if source.raw_os_error() == Some(UNKNOWN) => Ok(false),
        // EADDRNOTAVAIL, see [`NetError::from_errno`].
        Err(error) if error.is_not_found() => Ok(true),
        Err(error) => Err(error),
    }
}

/// Said of a kind that is not there: EOPNOTSUPP.
const UNKNOWN: i32 = rustix::io::Errno::OPNOTSUPP.raw_os_error();
