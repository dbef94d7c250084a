//! Whose task goes next, and to whom.

use super::*;

/// So many jobs of this client, one after the other.
async fn submit_of(conductor: &Conductor, client: &str, count: usize) {
    for _ in 0..count {
        conductor.submit(&Arc::from(client), request()).await.expect("accepted");
    }
}

/// Whose the next tasks are, each reported before the next one is taken.
async fn served(conductor: &Conductor, worker: &mut Worker, count: usize) -> Vec<String> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let task = worker.task().await;
        clients.push(task.offer.client.to_string());
        worker.report(&task).await;
    }
    // Whatever was decided for the last report is durable when this answers.
    conductor.stats().await.expect("it runs");
    clients
}

#[tokio::test]
async fn one_clients_many_jobs_do_not_delay_anothers_one_nor_do_they_after_a_restart() {
    let store = Arc::new(MemoryStore::default());
    let before = start(Faulty::over(store.clone())).conductor;
    submit_of(&before, "many", 200).await;
    submit_of(&before, "one", 1).await;
    submit_of(&before, "two", 2).await;
    // The first conductor is simply forgotten, as a crash would.
    let after = start(Faulty::over(store)).conductor;
    let mut worker = Worker::join(&after, "w1", 1).await;
    let order = served(&after, &mut worker, 30).await;
    // All of them long before the two hundred. (The very order is the business of the ready queue's own tests: where tasks are read as
    // they are needed, turns pass while one is being read, and more of them on a busy machine.)
    let of = |order: &[String], client: &str| order.iter().filter(|served| *served == client).count();
    assert_eq!((of(&order, "one"), of(&order, "two")), (1, 2), "{order:?}");
    submit_of(&after, "late", 1).await;
    let order = served(&after, &mut worker, 30).await;
    assert_eq!(of(&order, "late"), 1, "{order:?}");
}

#[tokio::test]
async fn a_client_of_three_times_the_weight_gets_three_turns_for_one() {
    let conductor = start(Faulty::new()).conductor;
    let heavy = Terms { weight: 3, ..Terms::default() };
    conductor.tenancy().replace(Arc::new(Tenants::new([(Arc::from("heavy"), Arc::new(heavy))])));
    submit_of(&conductor, "light", 40).await;
    submit_of(&conductor, "heavy", 40).await;
    let mut worker = Worker::join(&conductor, "w1", 1).await;
    let order = served(&conductor, &mut worker, 40).await;
    let turns = order.iter().filter(|client| *client == "heavy").count();
    // Where tasks are read as they are needed, a turn may pass while one is being read.
    assert!((25..=35).contains(&turns), "{turns} of 40: {order:?}");
    // The weights of a reload hold from the next turn on.
    conductor.tenancy().replace(Arc::default());
    let order = served(&conductor, &mut worker, 16).await;
    let turns = order.iter().filter(|client| *client == "heavy").count();
    assert!((5..=11).contains(&turns), "{turns} of 16: {order:?}");
}
