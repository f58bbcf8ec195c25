//! Links of the node and of pods: names, what is there, removal. [`super::pair`] makes those of pods.

use std::time::Duration;

use datapath_abi::endpoint::HOST_MAC;
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage, State},
};
use sha2::{Digest, Sha256};

use crate::mac::Mac;

use super::{
    NetError, Netlink, Netns, Node,
    alias::Alias,
    error::Tolerate,
    netlink::{Mode, Request},
    pair::PodDevice,
    presence::Presence,
};

/// What the names of our links on the node begin with.
pub const HOST_PREFIX: &str = "bh";

/// Hexadecimal digits after it: together below the 15 bytes that a name may have (IFNAMSIZ is 16
/// with the final zero, include/uapi/linux/if.h).
const HOST_DIGITS: usize = 11;

/// Name of the host side of a pod's pair: `bh` and 44 bits of a hash of the attachment.
pub fn host_ifname(container_id: &str, ifname: &str) -> String {
    // A container id never holds a slash, so the text names one attachment only.
    let hash = Sha256::digest(format!("{container_id}/{ifname}"));
    let mut name = HOST_PREFIX.to_owned();
    name.extend(hash.iter().flat_map(|byte| [byte >> 4, byte & 15]).take(HOST_DIGITS).map(digit));
    name
}

fn digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).expect("a nibble is below 16")
}

/// Whether a name is one that [`host_ifname`] makes.
pub fn is_host_ifname(name: &str) -> bool {
    name.strip_prefix(HOST_PREFIX).is_some_and(|rest| {
        rest.len() == HOST_DIGITS && rest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// A message that keeps the kernel from giving a link a link-local address.
pub(crate) fn no_link_local(ifindex: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
        In6AddrGenMode::None,
    )])])];
    message
}

/// A request to bring a link up.
pub(crate) fn up(ifindex: u32, object: String) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    set(message, "bring up", object)
}

pub(crate) fn set(message: LinkMessage, action: &'static str, object: String) -> Request {
    Request { message: RouteNetlinkMessage::SetLink(message), mode: Mode::Change, action, object }
}

/// Removes a link of the node by name, and with it the pod's side. Gone already is done.
pub async fn delete_link(node: &Node, name: &str) -> Result<(), NetError> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    delete(node.netlink(), message, format!("link {name}")).await
}

/// Removes the host side of an attachment: by name, and if it was renamed by its index. Succeeds only
/// when neither is there any more. `ifindex` 0: there is none yet.
///
/// Does not wait until the kernel has forgotten the link: that takes it a grace period of RCU for all that
/// may still hold it (`netdev_run_todo`, net/core/dev.c), 10 to 30 ms in which nobody can find it any more,
/// no packet passes and nothing can bring it back (ADR 0015).
pub async fn delete_attachment(node: &Node, presence: &Presence, name: &str, ifindex: u32) -> Result<(), NetError> {
    let object = || format!("link {name}");
    let unknown = |source| NetError::Refused { action: "look up", object: object(), said: String::new(), source };
    if let Some(found) = presence.index(name).map_err(|errno| unknown(errno.into()))? {
        delete_apart(node, presence, found, object()).await?;
    }
    if !presence.has(ifindex) {
        return Ok(());
    }
    match by_index(node.netlink(), ifindex).await {
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
        // The kernel does not hand out an index again before all others have had their turn: what
        // is there under it is ours, whatever it is called now.
        Ok(found) if found.mac == Some(Mac(HOST_MAC)) => {
            delete_apart(node, presence, ifindex, format!("link {ifindex}")).await
        }
        Ok(_) => Ok(()),
    }
}

/// Removes a link by a connection of its own, in a thread of its own, which the kernel keeps until all is
/// done; waits for that, or until no link has the index, which is earlier. By index and not by name: when the thread
/// comes to it the link may have gone otherwise, and another one have its name.
async fn delete_apart(node: &Node, presence: &Presence, ifindex: u32, object: String) -> Result<(), NetError> {
    /// Between two looks.
    const PAUSE: Duration = Duration::from_millis(1);
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    let removal = node.netns().run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let netlink = Netlink::open()?;
            Ok(delete(&netlink, message, object).await)
        })
    });
    let mut removal = std::pin::pin!(removal);
    loop {
        tokio::select! {
            removed = &mut removal => return removed?.map_err(NetError::own)?,
            () = tokio::time::sleep(PAUSE) => if !presence.has(ifindex) {
                return Ok(());
            },
        }
    }
}

/// Removes a link of a pod by name, and with it the host side. Gone already is done.
pub async fn delete_pod_link(sandbox: &Netns, ifname: &str) -> Result<(), NetError> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(ifname.to_owned())];
    delete(&sandbox.connect().await?, message, format!("link {ifname} of the pod")).await
}

async fn delete(netlink: &Netlink, message: LinkMessage, object: String) -> Result<(), NetError> {
    let message = RouteNetlinkMessage::DelLink(message);
    netlink.change(Request { message, mode: Mode::Change, action: "remove", object }).await.or_gone()
}

/// A link as the kernel describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its alias, empty if it has none.
    pub alias: String,
    /// Its MAC address, if it is an Ethernet device.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub is_up: bool,
    /// Whether packets pass: its operational state is up (RFC 2863, ifOperStatus).
    pub is_running: bool,
    /// Which kind of a pair it is an end of, if of one that pods have.
    pub device: Option<PodDevice>,
    /// Index of the other end of a pair, in the namespace that end is in.
    pub peer_ifindex: Option<u32>,
}

impl Link {
    /// The attachment a host link was made for, if its alias says.
    pub fn attachment(&self) -> Option<Alias> {
        let alias = Alias::parse(&self.alias)?;
        (host_ifname(&alias.container_id, &alias.ifname) == self.name).then_some(alias)
    }
}

/// Looks a link up by name.
pub async fn find_link(netlink: &Netlink, name: &str) -> Result<Link, NetError> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    let object = || format!("link {name}");
    match netlink.get(RouteNetlinkMessage::GetLink(message), object()).await? {
        RouteNetlinkMessage::NewLink(message) => Ok(read(message)),
        other => Err(NetError::Unexpected { action: "look up", object: object(), answer: format!("{other:?}") }),
    }
}

/// Looks a link up by index.
pub(crate) async fn by_index(netlink: &Netlink, ifindex: u32) -> Result<Link, NetError> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    let object = || format!("link {ifindex}");
    match netlink.get(RouteNetlinkMessage::GetLink(message), object()).await? {
        RouteNetlinkMessage::NewLink(message) => Ok(read(message)),
        other => Err(NetError::Unexpected { action: "look up", object: object(), answer: format!("{other:?}") }),
    }
}

/// All links of the node that we made for pods, of whatever kind, by index.
pub async fn host_links(node: &Node) -> Result<Vec<Link>, NetError> {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Unspec;
    let found = node.netlink().dump(RouteNetlinkMessage::GetLink(message), "links").await?;
    let mut links: Vec<Link> = found
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(message) => Some(read(message)),
            _ => None,
        })
        .filter(|link| link.device.is_some() && is_host_ifname(&link.name))
        .collect();
    links.sort_by_key(|link| link.ifindex);
    Ok(links)
}

fn read(message: LinkMessage) -> Link {
    let mut link = Link {
        ifindex: message.header.index,
        name: String::new(),
        alias: String::new(),
        mac: None,
        mtu: 0,
        is_up: message.header.flags.contains(LinkFlags::Up),
        is_running: false,
        device: None,
        peer_ifindex: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::OperState(state) => link.is_running = state == State::Up,
            LinkAttribute::Link(peer) => link.peer_ifindex = Some(peer),
            LinkAttribute::LinkInfo(infos) => {
                link.device = infos.iter().find_map(PodDevice::of);
            }
            _ => {}
        }
    }
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_fit_and_tell_attachments_apart() {
        let one = host_ifname("c0ffee", "eth0");
        assert_eq!(one.len(), 13);
        assert!(is_host_ifname(&one), "{one}");
        assert_eq!(one, host_ifname("c0ffee", "eth0"));
        assert_ne!(one, host_ifname("c0ffee", "eth1"));
        assert_ne!(one, host_ifname("c0ffe", "eth0"));
    }

    #[test]
    fn host_names_are_the_same_in_every_build() {
        // printf 'c0ffee/eth0' | sha256sum
        assert_eq!(host_ifname("c0ffee", "eth0"), "bh6ad2516ced2");
    }

    #[test]
    fn names_of_others_are_not_ours() {
        for name in ["bh", "bh0", "bh0123456789A", "bh0123456789g", "bh0123456789ab", "bx0123456789a", "eth0"] {
            assert!(!is_host_ifname(name), "{name}");
        }
        assert!(is_host_ifname("bh0123456789a"));
    }

    #[test]
    fn an_alias_names_the_attachment_only_if_the_name_agrees() {
        let mut link = Link {
            ifindex: 1,
            name: host_ifname("c1", "eth0"),
            alias: "c1/eth0".into(),
            mac: None,
            mtu: 1500,
            is_up: false,
            is_running: false,
            device: Some(PodDevice::Veth),
            peer_ifindex: None,
        };
        let alias = Alias { container_id: "c1".into(), ifname: "eth0".into(), pod: None };
        assert_eq!(link.attachment(), Some(alias));
        link.alias = "c2/eth0".into();
        assert_eq!(link.attachment(), None);
        link.alias.clear();
        assert_eq!(link.attachment(), None);
    }
}
