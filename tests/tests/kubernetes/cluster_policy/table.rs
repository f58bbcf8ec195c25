//! The cases. What each expects is something that the one before does not, and that holds once all of its policies are
//! in force only.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::{Value, json};
use tests::cluster::layout::POD_RANGES;

use super::{
    ALL, Case, Denied,
    write::{
        addresses, admin, anybody, app, baseline, both_teams, from, named, node, on, port, ports, staged, team, to,
    },
};
use crate::{life::admits, stage::Pod};

/// Everybody but the pod that most policies are about.
const OTHERS: &str = "red/api blue/web blue/db";

fn case(name: &'static str, policies: &[Value], denied: &[Denied]) -> Case {
    Case { name, policies: policies.to_vec(), denied: denied.to_vec() }
}

pub(super) fn cases(pods: &BTreeMap<String, Pod>) -> anyhow::Result<Vec<Case>> {
    let db = pods.get("blue/db").context("a pod of the table")?;
    Ok([tiers(), order(), ends(), egress(db), protocols(), moments()].into_iter().flatten().collect())
}

/// Admin, NetworkPolicy, Baseline.
fn tiers() -> Vec<Case> {
    let web = &app("red", "web");
    // Isolates the pod, and admits one to it.
    let np = || admits("red", "web", Some("api"));
    vec![
        case("no policy", &[], &[]),
        case("NetworkPolicy alone", &[np()], &[("blue/web blue/db", "red/web", ALL)]),
        case(
            "Admin Accept comes before NetworkPolicy, which does not admit",
            &[np(), admin("a", 1, web, &[from("Accept", &[app("blue", "db")])])],
            &[("blue/web", "red/web", ALL)],
        ),
        case(
            "Admin Deny comes before NetworkPolicy, which admits",
            &[np(), admin("a", 1, web, &[from("Deny", &[team("red")])])],
            &[(OTHERS, "red/web", ALL)],
        ),
        case(
            "Pass leaves it to NetworkPolicy, whatever Admin rules come after it",
            &[np(), admin("a", 1, web, &[from("Pass", &[app("blue", "web")]), from("Accept", &[anybody()])])],
            &[("blue/web", "red/web", ALL)],
        ),
        case(
            "Pass leaves it to Baseline, where no NetworkPolicy isolates",
            &[
                admin("a", 1, web, &[from("Pass", &[app("blue", "db")]), from("Accept", &[anybody()])]),
                baseline("b", 1, web, &[from("Deny", &[anybody()])]),
            ],
            &[("blue/db", "red/web", ALL)],
        ),
        case(
            "Pass ends Baseline, too",
            &[baseline("b", 1, web, &[from("Pass", &[app("red", "api")]), from("Deny", &[anybody()])])],
            &[("blue/web blue/db", "red/web", ALL)],
        ),
        case(
            "Baseline Deny, where no NetworkPolicy isolates",
            &[baseline("b", 1, web, &[from("Deny", &[anybody()])])],
            &[(OTHERS, "red/web", ALL)],
        ),
        case(
            "Baseline Deny is not asked where NetworkPolicy isolates, and asked where it does not",
            &[np(), baseline("b", 1, &team("red"), &[from("Deny", &[app("red", "api"), app("blue", "db")])])],
            &[("blue/web blue/db", "red/web", ALL), ("blue/db", "red/api", ALL)],
        ),
        case(
            "Baseline Accept does not open what NetworkPolicy isolates",
            &[np(), baseline("b", 1, &team("red"), &[from("Accept", &[anybody()])])],
            &[("blue/web blue/db", "red/web", ALL)],
        ),
        case(
            "Baseline Accept comes before a later Baseline Deny",
            &[
                baseline("b", 1, web, &[from("Accept", &[app("blue", "db")])]),
                baseline("c", 2, web, &[from("Deny", &[anybody()])]),
            ],
            &[("red/api blue/web", "red/web", ALL)],
        ),
    ]
}

/// Within a tier.
fn order() -> Vec<Case> {
    let web = &app("red", "web");
    let (api, other, db) = (|| app("red", "api"), || app("blue", "web"), || app("blue", "db"));
    vec![
        case(
            "what no rule matches passes: rules of ClusterNetworkPolicies isolate nobody",
            &[admin("a", 1, web, &[from("Accept", &[api()]), on(from("Deny", &[db()]), &[port("udp", 81)])])],
            &[("blue/db", "red/web", "udp/81")],
        ),
        case(
            "the lowest priority is asked first, whatever the names",
            &[admin("a", 20, web, &[from("Deny", &[anybody()])]), admin("b", 10, web, &[from("Accept", &[db()])])],
            &[("red/api blue/web", "red/web", ALL)],
        ),
        case(
            "0 and 1000 are priorities, and 0 is the lower one",
            &[admin("a", 1000, web, &[from("Deny", &[anybody()])]), admin("b", 0, web, &[from("Accept", &[other()])])],
            &[("red/api blue/db", "red/web", ALL)],
        ),
        case(
            "of one priority the first by name, whichever was made first",
            &[
                admin("b", 10, web, &[from("Accept", &[db()]), from("Deny", &[api(), other()])]),
                admin("a", 10, web, &[from("Deny", &[db()]), from("Accept", &[api()])]),
            ],
            &[("blue/web blue/db", "red/web", ALL)],
        ),
        case(
            "rules of a policy as they are written",
            &[admin(
                "a",
                1,
                web,
                &[from("Deny", &[other()]), from("Accept", &[team("blue")]), from("Deny", &[anybody()])],
            )],
            &[("red/api blue/web", "red/web", ALL)],
        ),
    ]
}

/// Subjects, and peers of ingress rules.
fn ends() -> Vec<Case> {
    let web = &app("red", "web");
    let labelled = |values: &[&str]| json!({"matchExpressions": [{"key": "app", "operator": "In", "values": values}]});
    vec![
        case(
            "subject and peer: namespaces",
            &[admin("a", 1, &team("red"), &[from("Deny", &[team("blue")])])],
            &[("blue/web blue/db", "red/web red/api", ALL)],
        ),
        case(
            "subject and peer: pods of some namespaces, and pods of all",
            &[admin(
                "a",
                1,
                &json!({"pods": {"namespaceSelector": both_teams(), "podSelector": {"matchLabels": {"app": "web"}}}}),
                &[from("Deny", &[json!({"pods": {"podSelector": labelled(&["api", "db"])}})])],
            )],
            &[("red/api blue/db", "red/web blue/web", ALL)],
        ),
        case(
            "subject: all pods of a namespace; peer: pods of another",
            &[admin("a", 1, &team("blue"), &[from("Deny", &[app("red", "api")])])],
            &[("red/api", "blue/web blue/db", ALL)],
        ),
        case(
            "peer: namespaces by what their label is not",
            &[admin(
                "a",
                1,
                web,
                &[from(
                    "Deny",
                    &[json!({"namespaces": {"matchExpressions": [
                        {"key": "team", "operator": "NotIn", "values": ["blue"]},
                    ]}})],
                )],
            )],
            &[("red/api", "red/web", ALL)],
        ),
        case(
            "peer: pods of one namespace, not those with the same labels of another",
            &[admin("a", 1, &app("red", "api"), &[from("Deny", &[app("blue", "web")])])],
            &[("blue/web", "red/api", ALL)],
        ),
        case(
            "peers: any of them is enough",
            &[admin("a", 1, web, &[from("Deny", &[app("red", "api"), app("blue", "db")])])],
            &[("red/api blue/db", "red/web", ALL)],
        ),
    ]
}

/// What is sent, and both directions at once.
fn egress(db: &Pod) -> Vec<Case> {
    let web = &app("red", "web");
    let pods = || json!({"networks": [POD_RANGES.0, POD_RANGES.1]});
    vec![
        case(
            "to namespaces",
            &[admin("a", 1, &app("blue", "db"), &[to("Deny", &[team("red")])])],
            &[("blue/db", "red/web red/api", ALL)],
        ),
        case(
            "to pods; one with its node's network is none, whatever its labels",
            &[admin("a", 1, web, &[to("Deny", &[json!({"pods": {"podSelector": {"matchLabels": {"app": "web"}}}})])])],
            &[("red/web", "blue/web", ALL)],
        ),
        case("to a node", &[admin("a", 1, web, &[to("Deny", &[node("n2")])])], &[("red/web", "red/n2", ALL)]),
        case(
            "to all nodes, the pod's own one as well, but for a port",
            &[admin(
                "a",
                1,
                &team("red"),
                &[on(to("Accept", &[json!({"nodes": {}})]), &[port("tcp", 80)]), to("Deny", &[json!({"nodes": {}})])],
            )],
            &[("red/web red/api", "red/n1 red/n2", "tcp/81 udp")],
        ),
        case(
            "to networks: those of all pods, but for the addresses of one",
            &[admin("a", 1, web, &[to("Accept", &[addresses(db)]), to("Deny", &[pods()])])],
            &[("red/web", "red/api blue/web", ALL)],
        ),
        case(
            "a Pass for pods in front of every network",
            &[admin(
                "a",
                1,
                web,
                &[to("Pass", &[anybody()]), to("Deny", &[json!({"networks": ["0.0.0.0/0", "::/0"]})])],
            )],
            &[("red/web", "red/n1 red/n2", ALL)],
        ),
        case(
            "a name is nobody's yet: Accept accepts nobody, Deny denies everybody",
            &[
                admin("a", 1, web, &[to("Deny", &[json!({"domainNames": ["example.com"]})])]),
                admin(
                    "b",
                    1,
                    &app("blue", "db"),
                    &[to("Accept", &[json!({"domainNames": ["*.example.com"]})]), to("Deny", &[pods()])],
                ),
            ],
            &[("red/web", ALL, ALL), ("blue/db", "red/web red/api blue/web", ALL)],
        ),
        case(
            "what one end accepts, the other may deny",
            &[
                admin(
                    "a",
                    1,
                    &app("red", "api"),
                    &[
                        on(to("Accept", &[team("red")]), &[ports("tcp", 1, 65535)]),
                        on(to("Deny", &[team("red")]), &[port("udp", 80)]),
                    ],
                ),
                admin(
                    "b",
                    1,
                    web,
                    &[
                        on(from("Deny", &[team("red")]), &[port("tcp", 80)]),
                        on(from("Accept", &[team("red")]), &[ports("udp", 1, 65535)]),
                    ],
                ),
            ],
            &[("red/api", "red/web", "tcp/80 udp/80")],
        ),
    ]
}

/// Which ports.
fn protocols() -> Vec<Case> {
    let web = &app("red", "web");
    let deny = |protocols: &[Value]| admin("a", 1, web, &[on(from("Deny", &[anybody()]), protocols)]);
    vec![
        case("a port by its number", &[deny(&[port("tcp", 80)])], &[(OTHERS, "red/web", "tcp/80")]),
        case(
            "ports from one to another",
            &[deny(&[ports("tcp", 2, 80), ports("udp", 81, 65535), ports("tcp", 82, 90)])],
            &[(OTHERS, "red/web", "tcp/80 udp/81")],
        ),
        case("a port by its name", &[deny(&[named("serve-81-udp")])], &[(OTHERS, "red/web", "udp/81")]),
        case(
            "a port by the name that it has with whom it is sent to",
            &[admin("a", 1, &team("blue"), &[on(to("Deny", &[team("red")]), &[named("serve-80-tcp")])])],
            &[("blue/web blue/db", "red/web red/api", "tcp/80")],
        ),
        case(
            "a name that nobody has is no port",
            &[deny(&[named("serve-82-tcp"), port("udp", 80)])],
            &[(OTHERS, "red/web", "udp/80")],
        ),
        case(
            "every port of a protocol",
            &[deny(&[ports("udp", 1, 65535), ports("sctp", 1, 65535)])],
            &[(OTHERS, "red/web", "udp")],
        ),
    ]
}

/// Staged, edited, removed.
fn moments() -> Vec<Case> {
    let web = &app("red", "web");
    let all = |action| admin("a", 1, web, &[from(action, &[anybody()])]);
    // Enforced beside the others, to be seen.
    let beside = || admin("b", 2, web, &[on(from("Deny", &[app("blue", "db")]), &[port("tcp", 81)])]);
    vec![
        case("staged: nothing is denied", &[staged(all("Deny")), beside()], &[("blue/db", "red/web", "tcp/81")]),
        case("no longer staged", &[all("Deny"), beside()], &[(OTHERS, "red/web", ALL)]),
        case("edited, from Deny to Accept", &[all("Accept"), beside()], &[]),
        case("edited, from Accept to Deny", &[all("Deny"), beside()], &[(OTHERS, "red/web", ALL)]),
        case("the first is removed", &[beside()], &[("blue/db", "red/web", "tcp/81")]),
        case("all are removed", &[], &[]),
    ]
}
