//! Names of metrics that policies give.

use sluice_config::v1;

use super::support::client::Http;
use super::with_policy;

#[tokio::test]
async fn a_rule_is_counted_under_the_name_that_a_policy_gives() {
    let policy = v1::Policy {
        stat_name: "httproute/test/shop".into(),
        ..Default::default()
    };
    let (proxy, _backend, port) = with_policy(policy, Vec::new()).await;
    assert_eq!(Http::new(port).get("/").await.status, 200);
    let metrics = proxy.dataplane.metrics().encode();
    let lines: Vec<_> = metrics.lines().filter(|line| line.contains("route=")).collect();
    assert!(
        lines
            .iter()
            .any(|line| line.contains(r#"route="httproute/test/shop""#) && line.ends_with(" 1")),
        "{metrics}"
    );
    assert!(
        !lines
            .iter()
            .any(|line| line.contains(r#"route="HTTPRoute/test/r""#)),
        "{metrics}"
    );
}
