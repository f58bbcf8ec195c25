//! What the plugin asks of the daemon, taken apart as the daemon does: see `daemon/src/app/handler.rs`.

use std::net::IpAddr;

use daemon::cni::convert::{self, BadRequest};
use prost::Message as _;
use proto::bulkhead::cni::v1::{
    AddRequest, AttachmentId, CheckRequest, CniResult, GcRequest, Interface, Ip, Netns, Pod,
};

/// The first byte says which message it is.
pub(super) fn request(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let refused = match kind % 3 {
        0 => AddRequest::decode(rest).map(add),
        1 => CheckRequest::decode(rest).map(check),
        _ => GcRequest::decode(rest).map(gc),
    };
    if let Ok(Err(BadRequest { code, msg })) = refused {
        assert!([convert::code::INVALID_ENVIRONMENT, convert::code::INVALID_CONFIG].contains(&code), "{code}: {msg}");
        assert!(msg.contains(": "), "names the field: {msg}");
    }
}

fn add(request: AddRequest) -> Result<(), BadRequest> {
    let owner = convert::owner(request.id)?;
    // It names files and interfaces.
    assert!(!owner.container_id.is_empty() && !owner.container_id.contains(['/', '\0']) && owner.container_id != "..");
    assert!((1..16).contains(&owner.ifname.len()) && !owner.ifname.contains(['/', '\0']));
    let (path, _) = convert::netns(request.netns)?;
    assert!(path.starts_with('/'));
    let pod = convert::pod(request.pod, &owner)?;
    assert!(!pod.namespace.is_empty() && !pod.name.is_empty());
    if let Some(mac) = convert::mac(&request.mac)? {
        assert_eq!(mac.0[0] & 1, 0, "unicast");
    }
    let ips: Vec<IpAddr> = convert::ips(&request.ips)?;
    assert_eq!(ips.len(), request.ips.len());
    let mtu = convert::mtu(request.network.unwrap_or_default().mtu)?;
    assert!(mtu == 0 || (1280..=65_535).contains(&mtu));
    Ok(())
}

fn check(request: CheckRequest) -> Result<(), BadRequest> {
    let owner = convert::owner(request.id)?;
    let found = convert::addresses_in(request.prev_result.as_ref(), &owner.ifname);
    assert!(found.len() <= request.prev_result.map_or(0, |result| result.ips.len()));
    Ok(())
}

fn gc(request: GcRequest) -> Result<(), BadRequest> {
    for id in request.valid_attachments.unwrap_or_default().ids {
        convert::owner(Some(id))?;
    }
    Ok(())
}

/// One of each.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let id = Some(AttachmentId { container_id: "c1".into(), ifname: "eth0".into() });
    let add = AddRequest {
        id: id.clone(),
        netns: Some(Netns { path: "/run/netns/c1".into(), inode: 4_026_531_840 }),
        pod: Some(Pod { namespace: "a".into(), name: "b".into(), ..Pod::default() }),
        mac: "02:00:00:00:00:01".into(),
        ips: vec!["10.0.0.2".into(), "fd00::2".into()],
        ..AddRequest::default()
    };
    let result = CniResult {
        interfaces: vec![Interface { name: "eth0".into(), sandbox: "/run/netns/c1".into(), ..Interface::default() }],
        ips: vec![Ip { address: "10.0.0.2/32".into(), interface: Some(0), ..Ip::default() }],
        ..CniResult::default()
    };
    let check = CheckRequest { id: id.clone(), prev_result: Some(result), ..CheckRequest::default() };
    let list = proto::bulkhead::cni::v1::AttachmentList { ids: id.into_iter().collect() };
    let gc = GcRequest { valid_attachments: Some(list), ..GcRequest::default() };
    let messages = [(0, add.encode_to_vec()), (1, check.encode_to_vec()), (2, gc.encode_to_vec())];
    messages.into_iter().map(|(kind, message)| [vec![kind], message].concat()).collect()
}
