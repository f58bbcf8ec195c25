//! NetworkPolicy between real pods: what is allowed gets through, what is not does not, by TCP and
//! UDP, over IPv4 and IPv6. All meanings are covered by the compiler's tests; here is shown that they
//! arrive in the kernel.

use std::net::{IpAddr, SocketAddr};

use anyhow::ensure;
use serde_json::Value;
use tests::{
    manifest::{namespace, pod, pod_with_ports, policy},
    node::Node,
    pod::Pod,
    sandbox::Sandbox,
    traffic::{
        Case, Echo, OPEN,
        Protocol::{self, Ping, Tcp, Udp},
        Reached, SILENT, expect, reach,
    },
    trial::trial,
    world::World,
};

/// Cases, written as a table.
#[derive(Default)]
struct Table<'a>(Vec<Case<'a>>);

impl<'a> Table<'a> {
    fn line(&mut self, from: (&'a Sandbox, &str), protocol: Protocol, to: SocketAddr, allowed: bool) {
        let what = format!("{} to port {}", from.1, to.port());
        self.0.push(Case { what, from: from.0, protocol, to, allowed });
    }

    /// From pod to pod, over both families.
    fn pods(&mut self, from: &'a Pod, protocol: Protocol, to: &Pod, port: u16, allowed: bool) {
        for address in to.at(port) {
            self.line((&from.sandbox, &from.key), protocol, address, allowed);
        }
    }
}

#[test]
fn ingress_by_label_namespace_and_port() {
    trial(|| {
        let objects = [
            namespace("shop", ""),
            namespace("mon", "team: mon"),
            namespace("evil", ""),
            pod("shop/web", "app: web"),
            pod_with_ports(
                "shop/db",
                "app: db",
                "{name: pg, containerPort: 5432}, {name: dns, containerPort: 53, protocol: UDP}",
            ),
            pod("shop/other", "app: other"),
            pod("mon/prober", ""),
            pod("evil/web", "app: web"),
            policy(
                "shop/db",
                "  podSelector: {matchLabels: {app: db}}\n  ingress:\n\
                 \x20 - from: [{podSelector: {matchLabels: {app: web}}}]\n\
                 \x20   ports: [{port: pg}, {port: dns, protocol: UDP}]\n\
                 \x20 - from: [{namespaceSelector: {matchExpressions: [{key: team, operator: In, values: [mon]}]}}]\n\
                 \x20   ports: [{port: 9000, endPort: 9010}]",
            ),
        ];
        let node = Node::start(&[("all.yaml", &objects.concat())])?;
        let [web, db, other, prober, evil] =
            node.add_all(["shop/web", "shop/db", "shop/other", "mon/prober", "evil/web"])?;
        let _echo = Echo::start(&db.sandbox, &[53, 5432, 8999, 9000, 9007, 9010, 9011], &[53, 5432, 9000])?;
        let _back = Echo::start(&other.sandbox, &[80], &[80])?;
        let mut table = Table::default();
        for (from, protocol, port, allowed) in [
            (&web, Tcp, 5432, true),
            (&web, Udp, 53, true),
            (&web, Tcp, 53, false),
            (&web, Udp, 5432, false),
            (&web, Tcp, 9000, false),
            (&other, Tcp, 5432, false),
            (&other, Udp, 53, false),
            (&evil, Tcp, 5432, false),
            (&evil, Udp, 53, false),
            (&prober, Tcp, 8999, false),
            (&prober, Tcp, 9000, true),
            (&prober, Tcp, 9007, true),
            (&prober, Tcp, 9010, true),
            (&prober, Tcp, 9011, false),
            (&prober, Udp, 9000, false),
            (&prober, Tcp, 5432, false),
            // A pod is not isolated from itself: its traffic stays on its loopback.
            (&db, Tcp, 5432, true),
        ] {
            table.pods(from, protocol, &db, port, allowed);
        }
        // Not isolated for egress, and others are not isolated at all.
        table.pods(&db, Tcp, &other, 80, true);
        table.pods(&evil, Udp, &other, 80, true);
        expect(&table.0)
    });
}

#[test]
fn egress_by_label_named_port_and_block() {
    trial(|| {
        let objects = [
            namespace("shop", ""),
            pod("shop/web", "app: web"),
            pod_with_ports("shop/api1", "tier: api", "{name: http, containerPort: 8080}"),
            pod_with_ports("shop/api2", "tier: api", "{name: http, containerPort: 9090}"),
            policy(
                "shop/web",
                "  podSelector: {matchLabels: {app: web}}\n  policyTypes: [Egress]\n  egress:\n\
                 \x20 - to: [{podSelector: {matchLabels: {tier: api}}}]\n    ports: [{port: http}]\n\
                 \x20 - to:\n    - ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.4/30]}\n\
                 \x20   - ipBlock: {cidr: '2001:db8:2::/64', except: ['2001:db8:2::4/126']}\n\
                 \x20   ports: [{port: 443}, {port: 53, protocol: UDP}]",
            ),
        ];
        let node = Node::start(&[("all.yaml", &objects.concat())])?;
        let world = World::beside(&node)?;
        // Not preferred, so that no answer leaves with it by itself.
        world
            .sandbox
            .ip("addr add 192.0.2.5/24 dev eth0\naddr add 2001:db8:2::5/64 dev eth0 nodad preferred_lft 0\n")?;
        let [web, api1, api2] = node.add_all(["shop/web", "shop/api1", "shop/api2"])?;
        let _echoes = [
            Echo::start(&api1.sandbox, &[8080, 9090], &[8080])?,
            Echo::start(&api2.sandbox, &[8080, 9090], &[])?,
            Echo::start(&web.sandbox, &[80], &[])?,
            Echo::start(&world.sandbox, &[80, 443], &[53, 443])?,
            Echo::start(&node.sandbox, &[8080], &[])?,
        ];
        let mut table = Table::default();
        table.pods(&web, Tcp, &api1, 8080, true);
        table.pods(&web, Tcp, &api1, 9090, false);
        table.pods(&web, Tcp, &api2, 9090, true);
        table.pods(&web, Tcp, &api2, 8080, false);
        table.pods(&web, Udp, &api1, 8080, false);
        // The other way round: nobody is isolated for ingress.
        table.pods(&api1, Tcp, &web, 80, true);
        let spared = ["192.0.2.5", "2001:db8:2::5"].map(|text| text.parse::<IpAddr>().expect("an address"));
        for (address, spared) in world.at(0).iter().map(SocketAddr::ip).zip(spared) {
            for (protocol, port, allowed) in [(Tcp, 443, true), (Udp, 53, true), (Tcp, 80, false), (Udp, 443, false)] {
                table.line((&web.sandbox, &web.key), protocol, SocketAddr::new(address, port), allowed);
                table.line((&web.sandbox, &web.key), protocol, SocketAddr::new(spared, port), false);
            }
            // Who is not isolated reaches everything.
            table.line((&api1.sandbox, &api1.key), Tcp, SocketAddr::new(spared, 443), true);
        }
        // Its own node follows policy as any other address outside (API text; kubelet's probes are the
        // other direction).
        for address in ["10.77.0.1", "fd77::1"].map(|text| text.parse::<IpAddr>().expect("an address")) {
            table.line((&web.sandbox, &web.key), Tcp, SocketAddr::new(address, 8080), false);
            table.line((&api1.sandbox, &api1.key), Tcp, SocketAddr::new(address, 8080), true);
        }
        expect(&table.0)
    });
}

#[test]
fn blocks_also_mean_the_addresses_of_pods() {
    trial(|| {
        let node = Node::start(&[("pods.yaml", &pod("shop/db", "app: db"))])?;
        let [db, web, other] = node.add_all(["shop/db", "shop/web", "shop/other"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[80])?;
        node.apply(
            "policy.yaml",
            &policy(
                "shop/db",
                &format!(
                    "  podSelector: {{matchLabels: {{app: db}}}}\n  ingress:\n  - from:\n\
                     \x20   - ipBlock: {{cidr: 10.77.0.0/24, except: [{}/32]}}\n\
                     \x20   - ipBlock: {{cidr: 'fd77::/64', except: ['{}/128']}}",
                    other.v4, other.v6
                ),
            ),
        )?;
        let mut table = Table::default();
        for protocol in [Tcp, Udp] {
            table.pods(&web, protocol, &db, 80, true);
            table.pods(&other, protocol, &db, 80, false);
        }
        expect(&table.0)
    });
}

#[test]
fn a_pod_without_an_object_has_a_namespace_and_no_labels() {
    trial(|| {
        let objects = [
            namespace("shop", ""),
            policy("shop/deny-all", "  podSelector: {}\n  policyTypes: [Ingress, Egress]"),
            policy(
                "shop/unlabelled",
                "  podSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}\n\
                 \x20 ingress: [{from: [{namespaceSelector: {}}], ports: [{port: 80}]}]",
            ),
            policy("shop/labelled", "  podSelector: {matchLabels: {app: db}}\n  ingress: [{ports: [{port: 81}]}]"),
        ];
        let node = Node::start(&[("all.yaml", &objects.concat())])?;
        let [db, web, prober] = node.add_all(["shop/db", "shop/web", "mon/prober"])?;
        let _echo = Echo::start(&db.sandbox, &[80, 81], &[80])?;
        let mut table = Table::default();
        table.pods(&prober, Tcp, &db, 80, true);
        table.pods(&prober, Udp, &db, 80, false);
        table.pods(&prober, Tcp, &db, 81, false);
        table.pods(&web, Tcp, &db, 80, false);
        expect(&table.0)
    });
}

/// A rule without ports is about every protocol; one with ports is about those that have some.
#[test]
fn ping_passes_where_a_rule_has_no_ports() {
    trial(|| {
        let rule =
            |label: &str, more: &str| format!("{{from: [{{podSelector: {{matchLabels: {{app: {label}}}}}}}]{more}}}");
        let objects = [
            pod("shop/db", "app: db"),
            pod("shop/web", "app: web"),
            pod("shop/api", "app: api"),
            policy(
                "shop/db",
                &format!(
                    "  podSelector: {{matchLabels: {{app: db}}}}\n  ingress: [{}, {}]",
                    rule("web", ""),
                    rule("api", ", ports: [{protocol: TCP}, {protocol: UDP}]")
                ),
            ),
        ];
        let node = Node::start(&[("all.yaml", &objects.concat())])?;
        let [db, web, api, other] = node.add_all(["shop/db", "shop/web", "shop/api", "shop/other"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[80])?;
        let mut table = Table::default();
        for (from, ping, ports) in [(&web, true, true), (&api, false, true), (&other, false, false)] {
            table.pods(from, Ping, &db, 0, ping);
            table.pods(from, Tcp, &db, 80, ports);
            table.pods(from, Udp, &db, 80, ports);
        }
        // It may ask, and get answers, for it is isolated in the other direction only.
        table.pods(&db, Ping, &other, 0, true);
        expect(&table.0)?;
        let options = ["--protocol", "icmp", "--verdict", "denied"];
        let denied = node.bulkhead().flows_when(&options, |denied| denied.len() >= 4)?;
        ensure!(denied.len() == 4 && denied.iter().all(|flow| flow["destination"]["pod_name"] == "db"), "{denied:?}");
        Ok(())
    });
}

#[test]
fn the_node_reaches_its_isolated_pods() {
    trial(|| {
        let objects =
            [pod("shop/db", "app: db"), policy("shop/deny", "  podSelector: {}\n  policyTypes: [Ingress, Egress]")];
        let node = Node::start(&[("all.yaml", &objects.concat())])?;
        let [db, web] = node.add_all(["shop/db", "shop/web"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[80])?;
        for (protocol, to) in [Tcp, Udp].into_iter().flat_map(|protocol| db.at(80).map(|to| (protocol, to))) {
            let reached = reach(&node.sandbox, protocol, to, OPEN)?;
            ensure!(reached == Reached::Yes, "{protocol:?} from the node to {to}: {reached:?}");
            let reached = reach(&web.sandbox, protocol, to, SILENT)?;
            ensure!(reached == Reached::No, "{protocol:?} from shop/web to {to}: {reached:?}");
        }
        Ok(())
    });
}

/// The world knows no way to the pods: that answers come back shows that packets leave with the
/// node's address.
#[test]
fn pods_reach_the_outside_with_the_nodes_address() {
    trial(|| {
        let node = Node::start(&[])?;
        let world = World::beside(&node)?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[])?;
        for (to, wanted) in world.at(8080).into_iter().zip(world.node()) {
            let peer = std::thread::scope(|scope| {
                let listener = {
                    let _inside = world.sandbox.enter()?;
                    std::net::TcpListener::bind(SocketAddr::new(to.ip(), to.port()))?
                };
                let client = scope.spawn(|| reach(&web.sandbox, Tcp, to, OPEN));
                let (mut stream, peer) = listener.accept()?;
                let mut message = [0; 4];
                std::io::Read::read_exact(&mut stream, &mut message)?;
                std::io::Write::write_all(&mut stream, &message)?;
                let reached = client.join().expect("a client does not panic")?;
                ensure!(reached == Reached::Yes, "{to}: {reached:?}");
                Ok(peer.ip())
            })?;
            ensure!(peer == wanted, "{to} was reached from {peer}");
        }
        // Between pods nothing is rewritten.
        let _inside = web.sandbox.enter()?;
        for to in db.at(80) {
            let stream = std::net::TcpStream::connect_timeout(&to, OPEN)?;
            ensure!(web.addresses().contains(&stream.local_addr()?.ip()));
        }
        let from_web = |flows: &[Value]| flows.iter().any(|flow| flow["source"]["pod_name"] == "web");
        node.bulkhead().flows_when(&["--to-identity", "world", "--verdict", "allowed"], from_web)?;
        Ok(())
    });
}
