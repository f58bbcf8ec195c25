//! Pairs of links: made, found, removed, and what is in the way of that.

use daemon::{
    mac::Mac,
    net::{
        link,
        pair::{self, PairError, PodDevice},
        presence::Presence,
    },
};
use datapath_abi::endpoint::HOST_MAC;

use crate::namespace::{Namespace, Pod, ip, node, of_both, pod, spec, told};

of_both! {
    a_pair_is_made_with_both_ends_in_place_and_down,
    a_pod_that_has_the_interface_is_refused_and_nothing_is_left,
    an_attachment_that_is_there_is_refused_and_stays,
    what_the_kernel_refuses_is_told_with_object_and_errno_and_leaves_nothing,
    removing_takes_both_ends_and_may_be_repeated,
    an_attachment_that_was_removed_can_be_made_again_at_once,
    an_attachment_is_removed_under_whatever_name_and_nothing_else_is,
    our_links_are_found_with_their_attachments_and_addresses,
    the_link_goes_with_the_sandbox,
}

async fn a_pair_is_made_with_both_ends_in_place_and_down(device: PodDevice) {
    let (host, sandbox) = (Namespace::new(), Namespace::new());
    let node = node(&host).await;
    // Other indices in the two namespaces, so that they cannot be mixed up.
    sandbox.run("ip link add other type veth peer name other2");
    let spec = spec(device, "c1");
    let pair = pair::create(&node, &sandbox.netns, &spec).await.unwrap();
    assert_eq!(pair.host_ifname, link::host_ifname("c1", "eth0"));

    let outer = link::find_link(node.netlink(), &pair.host_ifname).await.unwrap();
    assert_eq!((outer.ifindex, outer.mac, outer.mtu), (pair.host_ifindex, Some(Mac(HOST_MAC)), 1400));
    assert!(outer.device == Some(device) && !outer.is_up);
    assert_eq!(outer.attachment().map(|it| (it.container_id, it.ifname)), Some(("c1".into(), "eth0".into())));

    let netlink = sandbox.netns.connect().await.unwrap();
    let inner = link::find_link(&netlink, "eth0").await.unwrap();
    assert_eq!((inner.ifindex, inner.mac, inner.mtu), (pair.pod_ifindex, Some(spec.mac), 1400));
    assert!(inner.device == Some(device) && !inner.is_up);
    assert_eq!(inner.peer_ifindex, Some(pair.host_ifindex));
    assert_ne!(pair.host_ifindex, pair.pod_ifindex);
}

async fn a_pod_that_has_the_interface_is_refused_and_nothing_is_left(device: PodDevice) {
    let (host, sandbox) = (Namespace::new(), Namespace::new());
    let node = node(&host).await;
    sandbox.run("ip link add eth0 type veth peer name other");
    let result = pair::create(&node, &sandbox.netns, &spec(device, "c1")).await;
    assert!(matches!(&result, Err(PairError::PodHasInterface { ifname, .. }) if ifname == "eth0"), "{result:?}");
    assert_eq!(link::host_links(&node).await.unwrap(), []);
    assert!(sandbox.run("ip -o link show eth0").contains("eth0@other"), "the pod's own interface was touched");
}

async fn an_attachment_that_is_there_is_refused_and_stays(device: PodDevice) {
    let (host, sandbox, other) = (Namespace::new(), Namespace::new(), Namespace::new());
    let node = node(&host).await;
    pair::create(&node, &sandbox.netns, &spec(device, "c1")).await.unwrap();
    for sandbox in [&sandbox, &other] {
        let result = pair::create(&node, &sandbox.netns, &spec(device, "c1")).await;
        assert!(matches!(&result, Err(PairError::HostHasInterface { .. })), "{result:?}");
    }
    assert_eq!(link::host_links(&node).await.unwrap().len(), 1);
}

async fn what_the_kernel_refuses_is_told_with_object_and_errno_and_leaves_nothing(device: PodDevice) {
    let (host, sandbox) = (Namespace::new(), Namespace::new());
    let node = node(&host).await;
    let mut bad = spec(device, "c1");
    bad.mtu = 10;
    let name = link::host_ifname("c1", "eth0");
    let error = told(pair::create(&node, &sandbox.netns, &bad).await);
    assert!(error.starts_with(&format!("create link {name}: ")) && error.contains("os error"), "{error}");
    let mut bad = spec(device, "c1");
    bad.ifname = "a name of many bytes".into();
    let error = told(pair::create(&node, &sandbox.netns, &bad).await);
    // Here the kernel has words besides the errno.
    assert!(error.contains("os error") && error.ends_with(": Attribute failed policy validation"), "{error}");
    assert_eq!(link::host_links(&node).await.unwrap(), []);
}

async fn removing_takes_both_ends_and_may_be_repeated(device: PodDevice) {
    let (host, sandbox) = (Namespace::new(), Namespace::new());
    let node = node(&host).await;
    for from_the_pod in [false, true] {
        let pair = pair::create(&node, &sandbox.netns, &spec(device, "c1")).await.unwrap();
        for _ in 0..2 {
            if from_the_pod {
                link::delete_pod_link(&sandbox.netns, "eth0").await.unwrap();
            } else {
                link::delete_link(&node, &pair.host_ifname).await.unwrap();
            }
        }
        assert!(link::find_link(node.netlink(), &pair.host_ifname).await.unwrap_err().is_not_found());
        let netlink = sandbox.netns.connect().await.unwrap();
        assert!(link::find_link(&netlink, "eth0").await.unwrap_err().is_not_found());
    }
}

async fn an_attachment_that_was_removed_can_be_made_again_at_once(device: PodDevice) {
    let (host, sandbox) = (Namespace::new(), Namespace::new());
    let node = node(&host).await;
    let presence = Presence::of(&node).await.unwrap();
    for round in 0..5 {
        let pair = pair::create(&node, &sandbox.netns, &spec(device, "c1")).await.unwrap();
        // Removed while it is in use: that takes the kernel longest.
        host.run(&format!("ip link set {} up", pair.host_ifname));
        sandbox.run("ip link set eth0 up");
        assert!(presence.has(pair.host_ifindex));
        for _ in 0..2 {
            link::delete_attachment(&node, &presence, &pair.host_ifname, pair.host_ifindex).await.unwrap();
            assert!(!presence.has(pair.host_ifindex), "round {round}");
        }
        assert!(link::find_link(node.netlink(), &pair.host_ifname).await.unwrap_err().is_not_found());
        let netlink = sandbox.netns.connect().await.unwrap();
        assert!(link::find_link(&netlink, "eth0").await.unwrap_err().is_not_found());
    }
}

async fn an_attachment_is_removed_under_whatever_name_and_nothing_else_is(device: PodDevice) {
    let (host, sandbox) = (Namespace::new(), Namespace::new());
    let node = node(&host).await;
    let presence = Presence::of(&node).await.unwrap();
    let pair = pair::create(&node, &sandbox.netns, &spec(device, "c1")).await.unwrap();
    host.run(&format!("ip link set {} name renamed", pair.host_ifname));
    host.run("ip link add other type bridge");
    let other = link::find_link(node.netlink(), "other").await.unwrap().ifindex;
    link::delete_attachment(&node, &presence, &pair.host_ifname, other).await.unwrap();
    assert!(presence.has(other) && presence.has(pair.host_ifindex));
    assert_eq!(presence.name(pair.host_ifindex).unwrap(), "renamed");
    link::delete_attachment(&node, &presence, &pair.host_ifname, pair.host_ifindex).await.unwrap();
    assert!(presence.has(other) && !presence.has(pair.host_ifindex));
}

async fn our_links_are_found_with_their_attachments_and_addresses(device: PodDevice) {
    let host = Namespace::new();
    let node = node(&host).await;
    host.run("ip link add bh0 type veth peer name bh1");
    host.run("ip link add bh0123456789a type bridge");
    let pods: [Pod; 2] = [pod(device, &node, 2, 2).await, pod(device, &node, 3, 1).await];
    let long = "c".repeat(300);
    let anonymous = Namespace::new();
    pair::create(&node, &anonymous.netns, &spec(device, &long)).await.unwrap();

    let links = link::host_links(&node).await.unwrap();
    let names: Vec<_> = links.iter().map(|link| link.attachment().map(|it| (it.container_id, it.ifname))).collect();
    let name = |id: &str| Some((id.to_owned(), "eth0".to_owned()));
    assert_eq!(names, [name("container2"), name("container3"), None]);
    for (pod, link) in pods.iter().zip(&links) {
        assert!(link.is_up);
        assert_eq!(link.ifindex, pod.pair.host_ifindex);
        let behind = daemon::net::host::addresses_behind(&node, link.ifindex).await.unwrap();
        assert_eq!(behind, pod.pod_side.addresses);
    }
    assert_eq!(pods[1].v4(), ip("10.7.0.3"));
}

async fn the_link_goes_with_the_sandbox(device: PodDevice) {
    let host = Namespace::new();
    let node = node(&host).await;
    let Pod { namespace, pair, .. } = pod(device, &node, 2, 2).await;
    drop(namespace);
    for _ in 0..200 {
        match link::find_link(node.netlink(), &pair.host_ifname).await {
            Err(error) if error.is_not_found() => return,
            _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
    panic!("{} is still there", pair.host_ifname);
}
