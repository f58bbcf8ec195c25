//! Canned explanations: one connection that is denied, one that is allowed.

use proto::bulkhead::admin::v1::{
    ConsideredRule, Direction, DirectionExplained, ExplainResponse, ExplainedParty, RuleRef, Verdict, Workload,
};

use crate::shop::{labels, network_policy, pod, rule};

fn party(name: &str, last: u8, identity: u32, app: &str) -> ExplainedParty {
    ExplainedParty {
        namespace: "shop".into(),
        pod: name.into(),
        ip: format!("10.88.0.{last}"),
        identity,
        labels: labels(&[("app", app)]),
        local: true,
        ..ExplainedParty::default()
    }
}

fn considered(rule: RuleRef, matched: bool, why: &str) -> ConsideredRule {
    let verdict = Verdict::Allow as i32;
    ConsideredRule {
        rule: Some(rule),
        verdict,
        matched,
        decides: matched,
        why: why.into(),
        ..ConsideredRule::default()
    }
}

const DENIED: &str = "\
ingress of shop/db-0 (10.88.0.2): isolated by NetworkPolicy shop/db-ingress and NetworkPolicy shop/deny-all, nothing allowed it
  NetworkPolicy shop/db-ingress ingress[0]: allow pods {app=web} of its namespace; TCP/5432: no match
    - the pod's label app=cache does not meet app=web
  NetworkPolicy shop/db-ingress ingress[1]: allow everyone; UDP/60-63: no match
    - 5432 is not one of its ports
";

/// The cache may not talk to the database.
pub(crate) fn denied() -> ExplainResponse {
    ExplainResponse {
        source: Some(party("cache-0", 7, 305, "cache")),
        destination: Some(party("db-0", 2, 301, "db")),
        protocol: "tcp".into(),
        port: 5432,
        verdict: Verdict::Deny as i32,
        reason: "isolated by shop/db-ingress, shop/deny-all; nothing allowed it".into(),
        directions: vec![
            DirectionExplained {
                direction: Direction::Egress as i32,
                pod: Some(pod("cache-0")),
                verdict: Verdict::Allow as i32,
                reason: "no policy isolates it".into(),
                text: "egress of shop/cache-0 (10.88.0.7): no policy isolates it\n".into(),
                enforced_here: true,
                ..DirectionExplained::default()
            },
            DirectionExplained {
                direction: Direction::Ingress as i32,
                pod: Some(pod("db-0")),
                isolated: true,
                isolated_by: vec![network_policy("db-ingress"), network_policy("deny-all")],
                verdict: Verdict::Deny as i32,
                reason: "none of 2 rules allows it".into(),
                considered: vec![
                    considered(
                        rule("db-ingress", Direction::Ingress, 0),
                        false,
                        "peer: cache-0 has app=cache, the rule wants app=web",
                    ),
                    considered(rule("db-ingress", Direction::Ingress, 1), false, "port: 5432 is not in udp 60-63"),
                ],
                text: DENIED.into(),
                instead: "denied: its rules as written are not in force (map PEERS is full)".into(),
                enforced_here: true,
                ..DirectionExplained::default()
            },
        ],
        notes: vec!["traffic from the pod's own node is always allowed in".into()],
    }
}

/// The web tier may talk to an address outside, from another node.
pub(crate) fn allowed() -> ExplainResponse {
    let web = ExplainedParty {
        workload: Some(Workload { kind: "Deployment".into(), name: "web".into() }),
        local: false,
        ..party("web-0", 3, 302, "web")
    };
    let world =
        ExplainedParty { ip: "2001:db8::7".into(), identity: 2, reserved_name: "world".into(), ..Default::default() };
    ExplainResponse {
        source: Some(web),
        destination: Some(world),
        protocol: "udp".into(),
        port: 53,
        verdict: Verdict::Allow as i32,
        reason: "allowed by shop/web-egress egress[0]".into(),
        directions: vec![DirectionExplained {
            direction: Direction::Egress as i32,
            pod: Some(pod("web-0")),
            isolated: true,
            isolated_by: vec![network_policy("web-egress")],
            verdict: Verdict::Allow as i32,
            reason: "allowed by shop/web-egress egress[0]".into(),
            deciding: Some(rule("web-egress", Direction::Egress, 0)),
            considered: vec![considered(rule("web-egress", Direction::Egress, 0), true, "2001:db8::7 is in ::/0")],
            enforced_here: false,
            text: "egress of shop/web-0 (10.88.0.3): allowed by NetworkPolicy shop/web-egress egress[0]\n  \
                   NetworkPolicy shop/web-egress egress[0]: allow ::/0; every port: decides\n"
                .into(),
            ..DirectionExplained::default()
        }],
        ..ExplainResponse::default()
    }
}
