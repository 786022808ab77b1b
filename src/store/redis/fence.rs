//! Who may write. A worker that was taken for dead may only have been asleep, with
//! commands in its buffers. So whoever takes a partition over first makes its own
//! epoch the partition's, then closes the other's connections in Redis. One that
//! connects again is asked for its epochs before anything is pushed.

use std::sync::Arc;

use redis::Value;

use super::{
    ClaimState, Claims,
    config::RedisConfig,
    control::{Call, Control, bytes},
    error::NodeError,
    keys, lock,
    node::{CONNECT_TIMEOUT, ConnectionName, Dial, NodeConnection, PROGRESS_TIMEOUT},
    pool::Admission,
    resp,
    topology::Topology,
};
use crate::store::StoreError;

/// Says whether every partition that this process works on is still its own.
pub(super) fn admission(control: Control, claims: Claims) -> Admission {
    Arc::new(move || {
        let (control, claims) = (control.clone(), Arc::clone(&claims));
        Box::pin(async move {
            let claimed: Vec<(u32, Vec<u8>)> = lock(&claims)
                .iter()
                .map(|(&partition, claim)| match claim.state {
                    ClaimState::Fenced => Err(not_admitted(StoreError::Fenced { partition })),
                    ClaimState::Held | ClaimState::Lost => Ok((partition, claim.epoch.clone())),
                })
                .collect::<Result<_, _>>()?;
            let calls = claimed
                .iter()
                .map(|(partition, _)| Call::of("HGET", &[&keys::partition(*partition), b"epoch"]))
                .collect();
            let epochs: Vec<Value> = control.run(calls).await.map_err(not_admitted)?;
            for ((partition, epoch), found) in claimed.into_iter().zip(epochs) {
                if bytes(found).as_ref() != Some(&epoch) {
                    note(&claims, partition, &epoch);
                    return Err(not_admitted(StoreError::Fenced { partition }));
                }
            }
            Ok(())
        })
    })
}

/// Takes note that a partition is another's, unless it was taken back meanwhile.
pub(super) fn note(claims: &Claims, partition: u32, epoch: &[u8]) {
    if let Some(claim) = lock(claims).get_mut(&partition)
        && claim.epoch == epoch
    {
        claim.state = ClaimState::Fenced;
    }
}

/// That nobody can tell is not that another has taken over.
fn not_admitted(error: StoreError) -> NodeError {
    let (reason, is_final) = (error.to_string(), error.is_final());
    match error {
        StoreError::Fenced { .. } => NodeError::Fenced { reason },
        _ => NodeError::Unadmitted { reason, is_final },
    }
}

/// Closes every connection over which `worker` pushes, on every node.
pub(super) async fn close_connections(
    config: &Arc<RedisConfig>,
    worker: &str,
) -> Result<(), NodeError> {
    let dial = Dial {
        config: Arc::clone(config),
        name: ConnectionName::new("fence", 0),
        connect_timeout: CONNECT_TIMEOUT,
        progress_timeout: PROGRESS_TIMEOUT,
        scripts: Arc::default(),
    };
    let name = ConnectionName::new(worker, 0);
    let topology = Topology::new(config).snapshot(&dial).await?;
    for node in topology.map.nodes() {
        let mut connection = NodeConnection::connect(node, &dial).await?;
        let resp::Value::Text(list) = connection.call(&[b"CLIENT", b"LIST"]).await? else {
            continue;
        };
        for id in ids_of(&String::from_utf8_lossy(&list), name.as_str()) {
            connection.close_other(id).await?;
        }
    }
    Ok(())
}

/// The ids of the connections with this name in what `CLIENT LIST` says.
fn ids_of(list: &str, name: &str) -> Vec<i64> {
    list.lines()
        .filter(|line| line.split(' ').any(|field| field.strip_prefix("name=") == Some(name)))
        .filter_map(|line| {
            line.split(' ').find_map(|field| field.strip_prefix("id=")?.parse().ok())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whoever_is_fenced_is_told_so() {
        let fenced = not_admitted(StoreError::Fenced { partition: 3 });
        assert!(matches!(fenced, NodeError::Fenced { .. }) && fenced.is_final(), "{fenced}");
        for is_final in [false, true] {
            let error = StoreError::Redis { reason: "it is loading".to_owned(), is_final };
            let unknown = not_admitted(error);
            assert!(matches!(unknown, NodeError::Unadmitted { .. }), "{unknown}");
            assert_eq!(unknown.is_final(), is_final, "a hiccup is tried again: {unknown}");
            assert!(unknown.to_string().contains("it is loading"), "{unknown}");
        }
    }

    #[test]
    fn connections_are_found_by_their_whole_name() {
        let list = "id=3 addr=1:2 name=roost:a:0 db=0\nid=4 name=roost:ab:0\nid=5 name= db=0\n\
                    id=61 laddr=x name=roost:a:0\n";
        assert_eq!(ids_of(list, "roost:a:0"), [3, 61]);
    }
}
