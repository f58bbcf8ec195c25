//! Addresses of links: add, remove, list.

use std::{collections::BTreeMap, net::IpAddr};

use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
};

use super::{
    NetError, Netlink, host_prefix,
    netlink::{Mode, Request},
};

/// One address of one link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LinkAddress {
    /// The link.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix_len: u8,
}

/// A request to put a single address (/32, /128) on a link, without duplicate address detection.
pub(crate) fn add_single(ifindex: u32, address: IpAddr) -> Request {
    let mut message = single(ifindex, address);
    // IFA_F_NODAD: the address is ours by allocation, and until detection was over (a second or
    // more) the kernel would not send from it.
    message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    Request {
        message: RouteNetlinkMessage::NewAddress(message),
        mode: Mode::Replace,
        action: "add",
        object: format!("address {address} to link {ifindex}"),
    }
}

/// A request to take it away.
pub(crate) fn remove_single(ifindex: u32, address: IpAddr) -> Request {
    Request {
        message: RouteNetlinkMessage::DelAddress(single(ifindex, address)),
        mode: Mode::Change,
        action: "remove",
        object: format!("address {address} from link {ifindex}"),
    }
}

fn single(ifindex: u32, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = host_prefix(address);
    message.header.scope = AddressScope::Universe;
    message.header.index = ifindex;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}

/// Addresses of one link, or of all.
pub async fn list(netlink: &Netlink, ifindex: Option<u32>) -> Result<Vec<LinkAddress>, NetError> {
    let mut message = AddressMessage::default();
    message.header.index = ifindex.unwrap_or(0);
    let found = netlink.dump(RouteNetlinkMessage::GetAddress(message), "addresses").await?;
    // Sorted and without repetitions, which a dump that ran across a change may hold.
    let mut addresses = BTreeMap::new();
    for message in found {
        let RouteNetlinkMessage::NewAddress(AddressMessage { header, attributes, .. }) = message else { continue };
        let mut address = None;
        for attribute in attributes {
            match attribute {
                // On point-to-point links IFA_ADDRESS is the other end and IFA_LOCAL ours; IPv6 has
                // only the former otherwise.
                AddressAttribute::Local(local) => address = Some(local),
                AddressAttribute::Address(other) if address.is_none() => address = Some(other),
                _ => {}
            }
        }
        if let Some(address) = address {
            addresses.insert((header.index, address), header.prefix_len);
        }
    }
    Ok(addresses
        .into_iter()
        .map(|((ifindex, address), prefix_len)| LinkAddress { ifindex, address, prefix_len })
        .collect())
}

pub(crate) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
