//! Behaviours that are written once and run on each backend.

/// A module of tests, one a behaviour, named after a backend: a function of the
/// crate that makes an empty one, or says `None` where there is none to be had. A
/// behaviour is an async function that takes it.
macro_rules! behaviours {
    ($backend:ident: $($behaviour:ident)*) => {
        mod $backend {
            /// The longest wait for a behaviour.
            const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    let Some(backend) = crate::$backend() else { return };
                    let behaviour = super::$behaviour(backend);
                    tokio::time::timeout(DEADLINE, behaviour).await.expect("it hangs");
                }
            )*
        }
    };
}

pub(crate) use behaviours;
