//! Filters of the qdisc clsact: whether ours are at an interface, and that somebody has removed some.
//!
//! They are made where programs are (`datapath`), which is not this module's business.

use std::{collections::BTreeSet, pin::Pin};

use futures::{Stream, StreamExt};
use rtnetlink::{
    MulticastGroup,
    packet_core::NetlinkPayload,
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcHandle, TcHeader, TcMessage},
    },
};

use super::{NetError, Node};

/// Every protocol, in the byte order of the network (ETH_P_ALL, include/uapi/linux/if_ether.h).
const ALL_PROTOCOLS: u32 = 3_u16.to_be() as u32;
/// Where clsact hangs its filters (TC_H_CLSACT with TC_H_MIN_INGRESS and TC_H_MIN_EGRESS,
/// include/uapi/linux/pkt_sched.h): what comes from the pod, what goes to it.
const PARENTS: [TcHandle; 2] = [
    TcHandle { major: u16::MAX, minor: TcHandle::MIN_INGRESS },
    TcHandle { major: u16::MAX, minor: TcHandle::MIN_EGRESS },
];

/// Whether an interface has a bpf filter of this priority and handle for what comes from the pod, and for
/// what goes to it. An interface that is not there has none.
pub async fn present(node: &Node, ifindex: u32, priority: u16, handle: u16) -> Result<[bool; 2], NetError> {
    let mut found = [false; 2];
    for (found, parent) in found.iter_mut().zip(PARENTS) {
        let header = TcHeader {
            index: ifindex.cast_signed(),
            handle: TcHandle { major: 0, minor: handle },
            parent,
            info: u32::from(priority) << 16 | ALL_PROTOCOLS,
            ..TcHeader::default()
        };
        let message = TcMessage::from_parts(header, vec![TcAttribute::Kind("bpf".into())]);
        let object = format!("filter of link {ifindex}");
        *found = match node.netlink().get(RouteNetlinkMessage::GetTrafficFilter(message), object).await {
            Ok(_) => true,
            Err(error) if error.is_not_found() => false,
            // Of a link without the qdisc the kernel says that the question makes no sense.
            Err(NetError::Refused { source, .. }) if source.kind() == std::io::ErrorKind::InvalidInput => false,
            Err(error) => return Err(error),
        };
    }
    Ok(found)
}

/// Indexes of interfaces that lost a filter or a qdisc; ends when the subscription does.
pub type Removals = Pin<Box<dyn Stream<Item = BTreeSet<u32>> + Send>>;

/// Hears of filters and qdiscs that are removed from now on, whoever does it. What goes with its interface
/// is not told. Notifications may be lost when too many come at once: the set is empty then.
pub async fn removals(node: &Node) -> Result<Removals, NetError> {
    let runtime = tokio::runtime::Handle::current();
    let subscribed = node
        .netns()
        .run(move || {
            let _context = runtime.enter();
            rtnetlink::new_multicast_connection(&[MulticastGroup::Tc])
        })
        .await?;
    let (connection, handle, notifications) = subscribed.map_err(|source| NetError::Refused {
        action: "subscribe to",
        object: "changes of filters".into(),
        said: String::new(),
        source,
    })?;
    tokio::spawn(connection);
    let removed = notifications.filter_map(move |(message, _)| {
        // The connection lives as long as its handle.
        let _ = &handle;
        std::future::ready(match message.payload {
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::DelTrafficFilter(gone) | RouteNetlinkMessage::DelQueueDiscipline(gone),
            ) => Some(BTreeSet::from([gone.header.index.cast_unsigned()])),
            NetlinkPayload::Overrun(_) => Some(BTreeSet::new()),
            _ => None,
        })
    });
    Ok(Box::pin(removed))
}
