//! Writes that find no room, and what is told of a store that may have lost something.

use std::{path::Path, time::Duration};

use tokio::time::sleep;

use super::*;
use crate::{
    domain::{Message, MessageId, Origin, UserId},
    event_log::embedded::EmbeddedLog,
    store::{Ledger, embedded::EmbeddedStore},
};

pub(super) const ANN: UserId = UserId(1);
pub(super) const NAME: &str = "a";
pub(super) const POST: PostId = PostId(1);
const MESSAGE: MessageId = MessageId(2);

fn writes(dir: &Path, memory: Memory, settings: Settings) -> Writes<EmbeddedLog, EmbeddedStore> {
    let log = EmbeddedLog::open(&dir.join("log"), Default::default()).unwrap();
    let store = EmbeddedStore::open(&dir.join("store"), Default::default()).unwrap();
    let progress = Arc::new(Progress::new(log.partitions()));
    let (ids, clock) = (Arc::new(PostIds::new(0, None)), Clock::new(|| 1_000));
    let (log, store) = (Arc::new(log), Arc::new(store));
    Writes::new(log, store, progress, memory, ids, clock, settings)
}

fn draft() -> Draft {
    Draft {
        author: ANN,
        text: "hi".to_owned(),
        origin: Origin::Exclusive,
        link: None,
        reply_to: None,
        repost_of: None,
        mentions: Default::default(),
        request_id: None,
        is_retry: false,
    }
}

#[tokio::test]
async fn a_write_that_finds_no_room_in_time_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { in_flight_wait_max: Duration::ZERO, ..Settings::default() };
    let writes = writes(dir.path(), Memory::perfect(), settings);
    let publish = async || writes.publish(vec![draft()]).await.remove(0);
    let all_room = writes.inner.start_write(usize::MAX).await.unwrap();
    assert!(matches!(publish().await, Err(WriteError::Busy)));
    drop(all_room);
    assert!(publish().await.is_ok());
}

#[tokio::test]
async fn what_is_not_found_is_nowhere_only_if_nothing_was_lost_meanwhile() {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Memory::of_shared_store());
    let settings = Settings { apply_wait_max: Duration::from_millis(200), ..Settings::default() };
    let writes = writes(dir.path(), memory.clone(), settings);
    let looking = memory.find_whole_again_and_again();
    let delete = async || writes.delete(PostId(7)).await;
    assert!(matches!(delete().await, Err(WriteError::UnknownPost { .. })));
    looking.abort();
    let noticing = tokio::spawn({
        let memory = memory.clone();
        async move {
            sleep(Duration::from_millis(20)).await;
            memory.found_whole(Instant::now());
            sleep(Duration::from_millis(20)).await;
            memory.found_loss();
        }
    });
    assert!(matches!(delete().await, Err(WriteError::Behind)));
    noticing.await.unwrap();
    assert!(matches!(delete().await, Err(WriteError::Behind)));
}

/// A store whose ledger says that requests have made [`POST`] and [`MESSAGE`]: if it has lost
/// something, perhaps by an event that is not the first of its name.
pub(super) async fn writes_of_a_store_that_knows_requests(
    dir: &Path,
    memory: Memory,
) -> Writes<EmbeddedLog, EmbeddedStore> {
    let writes = writes(dir, memory, Settings::default());
    let request_id = Some(NAME.to_owned());
    let post = Post::plain(POST, ANN);
    let message =
        Message { id: MESSAGE, sender: ANN, recipients: vec![UserId(2)], text: "psst".to_owned() };
    let events = [
        Event::PostPublished { post, request_id: request_id.clone() },
        Event::MessageSent { message, request_id },
    ];
    let partition = partition_of(ANN, writes.inner.log.partitions());
    writes.inner.store.apply(partition, 0, Arc::new(events)).await.unwrap();
    writes
}

/// What the requests are told that are known: a retry of a post, the same without a word that
/// it is one, and a message.
async fn told(
    writes: &Writes<EmbeddedLog, EmbeddedStore>,
) -> (Result<PostId, WriteError>, Result<PostId, WriteError>, Result<MessageId, WriteError>) {
    let request_id = Some(NAME.to_owned());
    let retry = Draft { request_id: request_id.clone(), is_retry: true, ..draft() };
    let post = Draft { is_retry: false, ..retry.clone() };
    let recipients = [UserId(2)].into();
    let message = MessageDraft { sender: ANN, recipients, text: "psst".to_owned(), request_id };
    let retried = writes.publish(vec![retry]).await.remove(0);
    let published = writes.publish(vec![post]).await.remove(0);
    let sent = writes.send_message(message).await.map(|sent| sent.message);
    assert!(writes.inner.log.ends().await.unwrap().iter().all(|end| *end == 0), "none is new");
    (retried, published, sent)
}

async fn assert_told_while_all_is_there(
    writes: &Writes<EmbeddedLog, EmbeddedStore>,
    memory: &Memory,
) {
    let looking = memory.find_whole_again_and_again();
    let (retried, published, sent) = told(writes).await;
    looking.abort();
    assert_eq!([retried.unwrap(), published.unwrap()], [POST; 2]);
    assert_eq!(sent.unwrap(), MESSAGE);
}

#[tokio::test]
async fn what_requests_have_made_is_told_while_nothing_is_lost() {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Memory::of_shared_store());
    let writes = writes_of_a_store_that_knows_requests(dir.path(), memory.clone()).await;
    assert_told_while_all_is_there(&writes, &memory).await;
}

/// Though no look has found the loss yet.
#[tokio::test]
async fn what_requests_have_made_is_not_told_while_nobody_knows_whether_it_is_lost() {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Memory::of_shared_store());
    let writes = writes_of_a_store_that_knows_requests(dir.path(), memory).await;
    // From here on only the store takes time of its own.
    tokio::time::pause();
    let (retried, published, sent) = told(&writes).await;
    assert!(matches!(retried, Err(WriteError::Unconfirmed)), "{retried:?}");
    assert!(matches!(sent, Err(WriteError::Unconfirmed)), "{sent:?}");
    // Publishing goes on where nobody can tell.
    assert_eq!(published.unwrap(), POST);
}

#[tokio::test]
async fn after_a_loss_what_requests_have_made_is_told_once_all_is_there_again() {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Memory::of_shared_store());
    let writes = writes_of_a_store_that_knows_requests(dir.path(), memory.clone()).await;
    tokio::time::pause();
    memory.found_loss();
    let (retried, _, sent) = told(&writes).await;
    assert!(matches!(retried, Err(WriteError::Unconfirmed)), "{retried:?}");
    assert!(matches!(sent, Err(WriteError::Unconfirmed)), "{sent:?}");
    assert_told_while_all_is_there(&writes, &memory).await;
}

/// The table of requests knows it until it is applied, whatever the store says.
#[tokio::test]
async fn a_retry_is_not_told_which_new_post_was_made_while_nobody_knows_whether_it_is_the_first() {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Memory::of_shared_store());
    let writes = writes_of_a_store_that_knows_requests(dir.path(), memory.clone()).await;
    let publish = async |is_retry| {
        let request_id = Some("new".to_owned());
        writes.publish(vec![Draft { request_id, is_retry, ..draft() }]).await.remove(0)
    };
    tokio::time::pause();
    let made = publish(false).await.unwrap();
    assert_eq!(publish(false).await.unwrap(), made, "it is the same request");
    assert!(matches!(publish(true).await, Err(WriteError::Unconfirmed)));
}
