//! Pods that are wired talk to each other, to the node, and from the first packet on.

use std::{
    net::{IpAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use daemon::net::{host, pair::PodDevice, pod as pod_net};

use crate::namespace::{GATEWAYS, Namespace, Pod, ip, mac, node, of_both, pod};

of_both! {
    pods_reach_each_other_and_the_node_in_both_families,
    what_a_pod_sends_first_arrives,
    what_is_sent_to_a_pod_first_arrives,
    the_first_packet_needs_no_arp,
    ipv6_is_usable_at_once_without_link_local_addresses,
    a_forged_source_is_refused_by_the_node_itself,
    a_pod_without_ipv6_leaves_none_on_its_link,
    nothing_passes_while_the_host_side_is_down,
    wiring_may_be_repeated,
    a_check_names_what_is_gone,
    ipv6_that_a_runtime_switched_off_is_switched_on_for_a_pod_that_has_it,
    many_pods_at_once,
}

async fn pods_reach_each_other_and_the_node_in_both_families(device: PodDevice) {
    let host = Namespace::new();
    let node = node(&host).await;
    let (a, b) = (pod(device, &node, 2, 2).await, pod(device, &node, 3, 2).await);
    for (a_ip, b_ip, gateway) in [(a.v4(), b.v4(), ip(GATEWAYS[0])), (a.v6(), b.v6(), ip(GATEWAYS[1]))] {
        assert_eq!(a.namespace.seen_as(&b.namespace, b_ip), a_ip);
        assert_eq!(b.namespace.seen_as(&a.namespace, a_ip), b_ip);
        assert_eq!(a.namespace.seen_as(&host, gateway), a_ip);
        // The node speaks to pods from the gateway.
        assert_eq!(host.seen_as(&a.namespace, a_ip), gateway);
    }
    // `lo` of a pod is up.
    for own in [ip("127.0.0.1"), ip("::1"), a.v4()] {
        a.namespace.seen_as(&a.namespace, own);
    }
}

/// A pod's side that was brought up first gets its queue only some time after the other side: what
/// is sent before is lost, and a TCP connection takes a second longer.
async fn what_a_pod_sends_first_arrives(device: PodDevice) {
    let host = Namespace::new();
    let node = node(&host).await;
    let listener = host.netns.run_blocking(|| UdpSocket::bind("10.7.0.1:0")).unwrap().unwrap();
    listener.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let to = listener.local_addr().unwrap();
    for n in 2..32 {
        let pod = pod(device, &node, n, 1).await;
        let sent = pod.namespace.netns.run_blocking(move || UdpSocket::bind("0.0.0.0:0")?.send_to(&[n], to));
        sent.unwrap().unwrap();
        let mut byte = [0];
        let (_, from) = listener.recv_from(&mut byte).unwrap_or_else(|error| panic!("pod {n}: {error}"));
        assert_eq!((byte, from.ip()), ([n], pod.v4()));
    }
}

/// A pod's IPv6 address is its own only when a worker of the kernel has said so, which takes its time
/// when other namespaces keep it busy.
async fn what_is_sent_to_a_pod_first_arrives(device: PodDevice) {
    let host = Namespace::new();
    let node = node(&host).await;
    let busy = Namespace::new();
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let lines: String = (0..200).map(|n| format!("addr add fd00:9::{n:x}/128 dev lo nodad\n")).collect();
    let batch = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(batch.path(), lines).unwrap();
    let crowd = std::thread::spawn(move || {
        while !told.load(Ordering::Relaxed) {
            busy.run(&format!("ip -batch {}", batch.path().display()));
            busy.run("ip -6 addr flush dev lo");
        }
    });
    let sender = host.netns.run_blocking(|| UdpSocket::bind("[::]:0")).unwrap().unwrap();
    let mut lost = Vec::new();
    for n in 2..32 {
        let pod = pod(device, &node, n, 2).await;
        let at = pod.v6();
        let listener = pod.namespace.netns.run_blocking(|| UdpSocket::bind("[::]:99")).unwrap().unwrap();
        listener.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        sender.send_to(&[n], (at, 99)).unwrap();
        if listener.recv_from(&mut [0]).is_err() {
            lost.push(n);
        }
    }
    stop.store(true, Ordering::Relaxed);
    crowd.join().unwrap();
    assert!(lost.is_empty(), "lost: {lost:?}");
}

/// Packets the host side has received.
fn received(host: &Namespace, pod: &Pod) -> u64 {
    let shown = host.run("cat /proc/thread-self/net/dev");
    let line = shown.lines().find(|line| line.contains(&pod.pair.host_ifname)).unwrap();
    line.split(':').nth(1).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn the_first_packet_needs_no_arp(device: PodDevice) {
    let host = Namespace::new();
    let node = node(&host).await;
    let pod = pod(device, &node, 2, 1).await;
    let before = received(&host, &pod);
    let send = |from: &Namespace, to: IpAddr| {
        from.netns.run_blocking(move || UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", (to, 9))).unwrap().unwrap()
    };
    // Nobody listens on the port, so the pod answers the second with an ICMP error: without ARP too.
    send(&pod.namespace, ip(GATEWAYS[0]));
    send(&host, pod.v4());
    let deadline = std::time::Instant::now() + Duration::from_secs(2);
    while received(&host, &pod) - before < 2 && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(received(&host, &pod) - before, 2);
    for (namespace, of) in [(&host, pod.v4()), (&pod.namespace, ip(GATEWAYS[0]))] {
        let shown = namespace.run("ip -4 neigh show");
        assert!(shown.lines().all(|line| line.starts_with(&of.to_string()) && line.contains("PERMANENT")), "{shown}");
    }
}

async fn ipv6_is_usable_at_once_without_link_local_addresses(device: PodDevice) {
    let host = Namespace::new();
    let node = node(&host).await;
    let pod = pod(device, &node, 2, 2).await;
    let shown = pod.namespace.run("ip -6 -o addr show dev eth0");
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert!(shown.contains("fd00:7::2/128") && !shown.contains("tentative"), "{shown}");
    let shown = host.run(&format!("ip -6 -o addr show dev {}", pod.pair.host_ifname));
    assert_eq!(shown, "");
    let shown = host.run("ip -6 neigh show");
    assert!(shown.contains("fd00:7::2") && shown.contains("PERMANENT"), "{shown}");
}

async fn a_forged_source_is_refused_by_the_node_itself(device: PodDevice) {
    let host = Namespace::new();
    let node = node(&host).await;
    // The greater of `all` and the interface's is in force; new namespaces have the machine's `all`.
    host.netns.run_blocking(|| daemon::net::sysctl::set("ipv4/conf/all/rp_filter", "0")).unwrap().unwrap();
    let pod = pod(device, &node, 2, 1).await;
    pod.namespace.run("ip addr add 10.7.0.99/32 dev eth0");
    let listener = host.netns.run_blocking(|| UdpSocket::bind("10.7.0.1:0")).unwrap().unwrap();
    let to = listener.local_addr().unwrap();
    let send = |from: IpAddr, text: &'static [u8]| {
        pod.namespace.netns.run_blocking(move || UdpSocket::bind((from, 0))?.send_to(text, to)).unwrap().unwrap()
    };
    send(ip("10.7.0.99"), b"forged");
    send(pod.v4(), b"true");
    let mut text = [0; 16];
    let (length, from) = listener.recv_from(&mut text).unwrap();
    assert_eq!((&text[..length], from.ip()), (&b"true"[..], pod.v4()));
}

async fn a_pod_without_ipv6_leaves_none_on_its_link(device: PodDevice) {
    let host = Namespace::new();
    let node = node(&host).await;
    let (four, both) = (pod(device, &node, 2, 1).await, pod(device, &node, 3, 2).await);
    let setting = |pod: &Pod, name: &str| {
        let name = format!("ipv6/conf/{}/{name}", pod.pair.host_ifname);
        host.netns.run_blocking(move || daemon::net::sysctl::get(&name)).unwrap().unwrap().unwrap()
    };
    assert_eq!(setting(&four, "disable_ipv6"), "1");
    assert_eq!(["disable_ipv6", "forwarding", "accept_ra"].map(|name| setting(&both, name)), ["0", "1", "0"]);
}

async fn nothing_passes_while_the_host_side_is_down(device: PodDevice) {
    let host = Namespace::new();
    let node = node(&host).await;
    let pod = pod(device, &node, 2, 1).await;
    host.run(&format!("ip link set {} down", pod.pair.host_ifname));
    assert!(pod.namespace.connect((ip(GATEWAYS[0]), 1).into()).is_err());
    assert!(host.connect((pod.v4(), 1).into()).is_err());
    // And enabling it again restores what taking it down has removed.
    host::enable(&node, &pod.host_side).await.unwrap();
    assert_eq!(host.seen_as(&pod.namespace, pod.v4()), ip(GATEWAYS[0]));
}

async fn wiring_may_be_repeated(device: PodDevice) {
    let host = Namespace::new();
    let node = node(&host).await;
    let pod = pod(device, &node, 2, 2).await;
    let state = |namespace: &Namespace| {
        ["ip -o addr", "ip -4 route", "ip -6 route", "ip neigh"].map(|command| namespace.run(command))
    };
    let before = (state(&host), state(&pod.namespace));
    host::prepare(&node, &GATEWAYS.map(ip)).await.unwrap();
    pod_net::configure(&pod.namespace.netns, &pod.pod_side).await.unwrap();
    host::enable(&node, &pod.host_side).await.unwrap();
    assert_eq!((state(&host), state(&pod.namespace)), before);
}

async fn a_check_names_what_is_gone(device: PodDevice) {
    let host = Namespace::new();
    let node = node(&host).await;
    let pod = pod(device, &node, 2, 2).await;
    let inner = async || {
        let found = pod_net::check(&pod.namespace.netns, &pod.pod_side).await.unwrap();
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let name = &pod.pair.host_ifname;
    let outer = async || {
        let found = host::check(&node, &pod.host_side).await.unwrap();
        found.iter().map(|one| one.to_string().replace(name.as_str(), "HOST")).collect::<Vec<_>>()
    };
    let none: [&str; 0] = [];
    assert_eq!((inner().await, outer().await), (none.map(String::from).into(), none.map(String::from).into()));
    // What later plugins add is no mismatch.
    pod.namespace.run("ip addr add 192.0.2.7/24 dev eth0");
    pod.namespace.run("ip route add 198.51.100.0/24 via 10.7.0.1");
    pod.namespace.run("ip link set eth0 mtu 1300");
    assert_eq!(inner().await, none);

    pod.namespace.run("ip route replace default dev eth0");
    assert_eq!(inner().await, ["default route through interface eth0 is gone"]);
    pod.namespace.run("ip route replace default via 10.7.0.1");
    assert_eq!(inner().await, none);
    pod.namespace.run("ip -6 route del default");
    assert_eq!(inner().await, ["default route through interface eth0 is gone"]);
    pod.namespace.run("ip route del 10.7.0.1");
    pod.namespace.run("ip addr del fd00:7::2/128 dev eth0");
    let expected = [
        "route to 10.7.0.1 through interface eth0 is gone",
        "address fd00:7::2 of interface eth0 is gone",
        "default route through interface eth0 is gone",
    ];
    assert_eq!(inner().await, expected);
    host.run("ip route del 10.7.0.2");
    assert_eq!(outer().await, ["route to 10.7.0.2 through interface HOST is gone"]);
    host.run(&format!("ip link set {name} down"));
    let expected = [
        "interface HOST is down",
        "route to 10.7.0.2 through interface HOST is gone",
        "route to fd00:7::2 through interface HOST is gone",
    ];
    assert_eq!(outer().await, expected);
    pod.namespace.run("ip link set eth0 down");
    assert_eq!(inner().await[0], "interface eth0 is down");
    pod.namespace.run("ip link del eth0");
    assert_eq!(
        (inner().await, outer().await),
        (vec!["interface eth0 is gone".into()], vec!["interface HOST is gone".into()])
    );
    pod.namespace.run("ip link add eth0 type veth peer name other");
    assert_eq!(inner().await, ["interface eth0 is another one than was made"]);
}

async fn ipv6_that_a_runtime_switched_off_is_switched_on_for_a_pod_that_has_it(device: PodDevice) {
    let (host, sandbox) = (Namespace::new(), Namespace::new());
    let node = node(&host).await;
    for namespace in [&host, &sandbox] {
        let written = namespace.netns.run_blocking(|| daemon::net::sysctl::set("ipv6/conf/default/disable_ipv6", "1"));
        written.unwrap().unwrap();
    }
    let mut spec = crate::namespace::spec(device, "c1");
    spec.mac = mac();
    let pair = daemon::net::pair::create(&node, &sandbox.netns, &spec).await.unwrap();
    let addresses = vec![daemon::ipam::PodAddress { address: ip("fd00:7::9"), gateway: ip(GATEWAYS[1]) }];
    let side = pod_net::PodSide { ifname: "eth0".into(), ifindex: pair.pod_ifindex, addresses: addresses.clone() };
    pod_net::configure(&sandbox.netns, &side).await.unwrap();
    let side =
        host::HostSide { ifname: pair.host_ifname.clone(), ifindex: pair.host_ifindex, pod_mac: spec.mac, addresses };
    host::enable(&node, &side).await.unwrap();
    assert_eq!(sandbox.seen_as(&host, ip(GATEWAYS[1])), ip("fd00:7::9"));
}

async fn many_pods_at_once(device: PodDevice) {
    let host = Namespace::new();
    let node = node(&host).await;
    let adding: Vec<_> = (2..22)
        .map(|n| {
            let node = node.clone();
            tokio::spawn(async move { pod(device, &node, n, 2).await })
        })
        .collect();
    let mut pods = Vec::new();
    for one in adding {
        pods.push(one.await.unwrap());
    }
    for pair in pods.windows(2) {
        assert_eq!(pair[0].namespace.seen_as(&pair[1].namespace, pair[1].v6()), pair[0].v6());
    }
    let links = daemon::net::link::host_links(&node).await.unwrap();
    assert_eq!(links.len(), pods.len());
}
