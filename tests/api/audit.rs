//! The auditor, on stores that something else can break.

use std::time::{Duration, Instant};

use crate::{metrics::sum, server::Roost};

const DEADLINE: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_takes_out_of_a_timeline_is_found_and_put_back() {
    let roost = Roost::start_auditing().await;
    if roost.is_alone() {
        // Its timelines are in memory, where nobody else comes.
        roost.stop().await;
        return;
    }
    roost.follow(1, 7).await;
    assert!(roost.home(1).await.post_ids.is_empty());
    let posts = roost.publish_many(7, 5).await;
    roost.delivered().await;
    roost.take_out_of_list("h:1", posts[2]).await;
    let begun = Instant::now();
    // Once it is settled.
    let text = loop {
        let (_, text) = roost.get("/metrics").await;
        if sum(&text, "roost_audit_repairs_total", "") > 0.0 {
            break text;
        }
        assert!(begun.elapsed() < DEADLINE, "not found:\n{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(sum(&text, "roost_audit_missing_entries_total", ""), 1.0, "{text}");
    assert_eq!(sum(&text, "roost_audit_extra_entries_total", ""), 0.0, "{text}");
    assert!(sum(&text, "roost_audit_loss_ratio", "") > 0.0, "{text}");
    assert_eq!(roost.home(1).await.post_ids, posts);
    let audited = sum(&text, "roost_audited_timelines_total", "");
    loop {
        let (_, text) = roost.get("/metrics").await;
        if sum(&text, "roost_audited_timelines_total", "") > audited {
            assert_eq!(sum(&text, "roost_audit_repairs_total", ""), 1.0, "{text}");
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "no audit any more:\n{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    roost.stop().await;
}
