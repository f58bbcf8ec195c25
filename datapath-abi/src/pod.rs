//! Tells aya that these types are plain bytes. The crate's only unsafe.
#![allow(unsafe_code)]

use crate::{addr, conntrack, dns, endpoint, event, maps, overlay, policy, service, uplink};

macro_rules! pod {
    ($($type:ty),* $(,)?) => {
        $(
            // SAFETY: the type is `repr(C)`, `Copy` and `'static`, accepts every bit pattern and
            // has no padding: it derives zerocopy's `FromBytes` and `IntoBytes`, and `plain`
            // below does not compile for one that does not.
            unsafe impl aya::Pod for $type {}
            const _: fn() = plain::<$type>;
        )*
    };
}

fn plain<T: zerocopy::FromBytes + zerocopy::IntoBytes>() {}

pod!(
    addr::Addr,
    addr::AddrEntry,
    conntrack::CtEntry,
    conntrack::CtKey,
    conntrack::FragmentEntry,
    conntrack::FragmentKey,
    conntrack::Waiting,
    dns::DnsEvent,
    dns::DnsPacket,
    endpoint::Endpoint,
    event::FlowEvent,
    maps::Counter,
    overlay::Origin,
    policy::Decision,
    policy::PeerEntry,
    policy::PeerKey,
    policy::PortKey,
    policy::RegionKey,
    policy::RulesetInfo,
    service::Backend,
    service::BackendKey,
    service::Frontend,
    service::FrontendKey,
    service::GoneKey,
    uplink::Budget,
    uplink::Denied,
);
