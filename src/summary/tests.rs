use std::thread;

use super::*;

fn said(last_id: u64) -> Figures {
    Figures { last_id, messages: last_id, ..Figures::default() }
}

#[test]
fn a_follower_is_woken_by_what_is_said_and_by_nothing_else() {
    let notifier = Arc::new(Notifier::default());
    let summary = Summary::new("e".into(), (1, 2), notifier.clone(), Arc::default());
    let woken = notifier.follow();
    // It looks at what there is at first.
    woken.try_recv().expect("woken");
    notifier.look();
    summary.publish(Figures { clients: 3, ..Figures::default() });
    assert!(woken.try_recv().is_err(), "clients come and go");
    summary.publish(said(1));
    summary.publish(said(2));
    woken.try_recv().expect("woken");
    assert!(woken.try_recv().is_err(), "once is enough");
    notifier.look();
    assert_eq!(summary.figures(), said(2));
    summary.publish(said(3));
    woken.try_recv().expect("woken again");
    notifier.end();
    assert!(woken.recv().is_err(), "the stream is over");
    assert!(notifier.follow().recv().is_err(), "and so is every later one");
}

#[test]
fn followers_of_many_busy_channels_end_with_what_is_true() {
    const LAST: u64 = 20_000;
    let notifier = Arc::new(Notifier::default());
    let summaries: Vec<_> = (0..4)
        .map(|_| Arc::new(Summary::new("e".into(), (0, 0), notifier.clone(), Arc::default())))
        .collect();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let woken = notifier.follow();
                loop {
                    notifier.look();
                    if summaries.iter().all(|summary| summary.figures() == said(LAST)) {
                        return;
                    }
                    // A wake that were lost would leave it waiting.
                    let deadline = std::time::Duration::from_secs(180);
                    woken.recv_timeout(deadline).expect("woken as long as there is more");
                }
            });
        }
        for summary in &summaries {
            scope.spawn(|| (1..=LAST).for_each(|last_id| summary.publish(said(last_id))));
        }
    });
}
