//! Identities that go and come back, before and after what they have left was cleared away.

use super::*;

/// Found by the differential run: an identity that came back was met by what it had left behind.
#[test]
fn who_comes_back_is_not_met_by_what_he_has_left() {
    let far = fixture::key("far/b");
    let at = |node: &Node| {
        let [web, api] = ["10.0.0.2", "10.9.0.1"].map(|ip| ip.parse().unwrap());
        side_allows(&node.mirror, web, api, Direction::Egress, 6, 8080)
    };
    for refused in [false, true] {
        let mut node = Node::new(Capacity { ports: 4, ..Capacity::default() });
        node.apply(SHOP);
        node.apply("policy shop/web {app=web}\n egress to {app=api} in {} ports TCP/http");
        node.apply("pod far/b app=api ip=10.9.0.1 port=http:TCP:8080");
        node.step();
        assert!(at(&node));
        let before = node.rules(1)[0];
        node.delete(&ObjectKey::Pod(far.clone()));
        node.step();
        if refused {
            // For all of these there is no room, so the rules stay what they were.
            let crowd: String =
                (2..6).map(|n| format!("pod far/{n} app=api n={n} ip=10.9.0.{n} port=http:TCP:{n}\n")).collect();
            node.apply(&crowd);
            assert!(!node.step().refusals.is_empty());
            node.collect();
        }
        node.apply("pod far/b app=api ip=10.9.0.1");
        let changes = node.step().changes;
        let first = changes.iter().position(|it| matches!(it, Change::PutAddress(..)));
        let dropped = changes.iter().position(|it| matches!(it, Change::DropPeer(_)));
        assert!(refused || dropped.is_some() && dropped < first, "{changes:?}");
        assert!(!at(&node), "{refused}: {changes:?}");
        assert_eq!(node.rules(1)[0].ruleset(), before.ruleset());
        assert_ne!(node.rules(1)[0].generation(), before.generation(), "what was admitted is asked about again");
    }
}

/// What a pod is called, and what it calls its ports.
const FORMS: [&str; 4] = ["", "port=http:TCP:80", "port=http:TCP:8080", "port=http:UDP:8080 port=dns:UDP:53"];

const RULES: &str = "
policy shop/web {app=web}
 egress to {app=api} in {} ports TCP/http
policy shop/db {app=db}
 egress to {app=api} in {} or {app=web} in {team=b} ports UDP/dns, UDP/http
cluster guard admin 10 {} in {team=a}
 egress deny to {app=api} in {} ports TCP/http
 egress pass to {app=web} in {} ports UDP/http
";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Incremental is fresh, for whoever is there: what is installed, and what packets meet.
    #[test]
    fn rules_say_of_who_comes_back_what_they_would_say_if_he_had_never_been_there(
        acts in prop::collection::vec((0..4u8, prop::option::weighted(0.6, 0..FORMS.len()), 0..8u8), 1..32)
    ) {
        let mut node = Node::new(Capacity::default());
        node.apply(SHOP);
        node.apply(RULES);
        for (pod, form, then) in acts {
            // Two of them share an identity.
            let app = if pod == 3 { "web" } else { "api" };
            let n = pod / 2;
            match form {
                Some(form) => node.apply(&format!("pod far/p{pod} app={app} n={n} ip=10.9.0.{pod} {}", FORMS[form])),
                None => node.delete(&ObjectKey::Pod(PodKey::new("far", format!("p{pod}")))),
            }
            match then {
                0 => continue,
                1 => node.restart(),
                _ => {}
            }
            node.step();
            node.check_rule_sets();
            if then == 2 {
                node.collect();
                node.check_rule_sets();
            }
        }
    }
}
