//! A real cluster, with Bulkhead for its network: what its users do, and every truth table of Kubernetes' own
//! suite. One cluster for all, as it takes half a minute to start; one after the other, as each looks at all of it.
//!
//! ```text
//! stage   the cluster, pods on it, and questions from pod to pod
//! install what one applies, its rights, updates, and taking it away again
//! life    nodes, pods, probes, kubectl, daemons that are killed, an API server that is away
//! services  from pods by us, the rest by kube-proxy
//! identities  numbers that nodes share
//! nodes   that come, go, and come back elsewhere
//! netpol  the truth tables
//! cluster_policy  ClusterNetworkPolicy's
//! kinds   clusters of other kinds, each with what matters most
//! ```

mod cluster_policy;
mod flows;
mod identities;
mod install;
mod kinds;
mod life;
mod netpol;
mod nodes;
mod services;
mod stage;

use std::{
    env,
    process::ExitCode,
    sync::{Mutex, PoisonError},
};

use libtest_mimic::{Arguments, Trial};
use stage::Stage;

type Test = fn(&mut Stage) -> anyhow::Result<()>;

const TESTS: &[(&str, Test)] = &[
    ("install::the_manifests_are_what_the_chart_makes", install::manifests_are_the_charts),
    ("install::values_that_cannot_be_are_refused", install::wrong_values_are_refused),
    ("install::every_agent_is_ready_and_says_so", install::agents_are_ready),
    ("life::pods_reach_each_other_on_all_nodes_in_both_families", life::everybody_reaches_everybody),
    ("services::they_and_their_names_lead_to_pods_on_all_nodes", services::they_lead_to_pods_on_all_nodes),
    ("services::policy_sees_the_pods_behind_them", services::policy_sees_the_pods_behind),
    ("services::the_pods_behind_them_come_and_go", services::pods_behind_come_and_go),
    ("services::kube_proxy_does_the_rest", services::kube_proxy_does_the_rest),
    ("services::so_does_one_of_iptables", services::so_does_one_of_iptables),
    ("life::a_kubelet_probes_a_pod_that_admits_nobody", life::probes_pass_under_default_deny),
    ("life::exec_logs_and_port_forward_work", life::kubectl_reaches_pods),
    ("life::a_pod_of_a_host_network_is_its_node", life::host_network_pods_are_nobody),
    ("life::labels_and_policies_bite_on_a_connection_that_lives", life::changes_bite_at_once),
    ("life::a_daemon_that_is_killed_costs_nothing", life::killing_daemons_costs_nothing),
    ("identities::all_nodes_use_one_number_for_one_identity", identities::all_nodes_use_one_number),
    ("identities::a_watch_that_is_late_lets_nobody_in", identities::a_watch_that_is_late_lets_nobody_in),
    ("identities::many_at_once_get_one_number_each", identities::many_at_once_get_one_number_each),
    ("life::while_the_api_server_is_away_policy_holds", life::the_api_server_goes_away_and_comes_back),
    ("life::a_pod_that_is_replaced_is_another", life::a_replaced_pod_is_another),
    ("life::a_static_pod_is_a_pod", life::static_pods_are_pods),
    ("nodes::init_containers_are_their_pod", nodes::init_containers_are_their_pod),
    ("life::what_stands_wrong_is_an_event", life::what_stands_wrong_is_an_event),
    ("install::an_update_costs_no_connection", install::an_update_costs_nothing),
    ("flows::a_relay_reads_all_nodes", flows::a_relay_reads_all_nodes),
    ("identities::what_nobody_uses_is_removed", identities::what_nobody_uses_is_removed),
    ("netpol::every_truth_table_of_the_upstream_suite_holds", netpol::every_truth_table_holds),
    ("cluster_policy::every_combination_of_tiers_holds", cluster_policy::every_combination_holds),
    ("cluster_policy::every_case_of_the_table_holds", cluster_policy::every_case_holds),
    ("cluster_policy::the_api_server_refuses_by_our_definition", cluster_policy::refused::by_the_api_server),
    ("cluster_policy::what_the_api_server_lets_in_is_refused_and_told", cluster_policy::refused::by_the_agent),
    ("nodes::one_joins_and_leaves_again", nodes::a_node_joins_and_leaves),
    ("nodes::one_comes_back_elsewhere", nodes::a_node_comes_back_elsewhere),
    // After the others, who make the agent do all that it does.
    ("install::what_it_may_do_is_what_it_does", install::rights_are_what_is_used),
    ("install::a_node_is_clean_afterwards", install::uninstall_leaves_nothing),
    // Each has a cluster of its own.
    ("kinds::without_kube_proxy", kinds::without_kube_proxy),
    ("kinds::of_ipv4_alone", kinds::of_ipv4_alone),
    ("kinds::of_ipv6_alone", kinds::of_ipv6_alone),
];

fn main() -> ExitCode {
    if env::var("BULKHEAD_CLUSTER_TESTS").is_ok_and(|value| value == "beside") {
        println!("Left to a run beside this one, as BULKHEAD_CLUSTER_TESTS=beside says.");
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let root = rustix::process::geteuid().is_root();
    let required = env::var("CI").is_ok_and(|value| value == "true")
        || env::var("BULKHEAD_KERNEL_TESTS").is_ok_and(|value| value == "required");
    // Compilers may run beside us; whoever waits for them loses leases. All that the cluster is made of inherits it.
    let _ = rustix::process::nice(-10);
    let stage: &'static Mutex<Option<Stage>> = Box::leak(Box::default());
    let trials = TESTS.iter().map(|&(name, test)| {
        let run = move || {
            let mut stage = stage.lock().unwrap_or_else(PoisonError::into_inner);
            let there = match &mut *stage {
                Some(there) => there,
                none => none.insert(Stage::start().map_err(|error| format!("{error:#}"))?),
            };
            test(there).map_err(|error| format!("{error:#}\n{}", there.tails()).into())
        };
        // Never as passed: what needs root has not been tested without.
        Trial::test(name, run).with_ignored_flag(!root && !required)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(stage.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}
