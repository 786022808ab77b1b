//! Which calls are let in together, by what `proto/` declares of their methods.

use crate::{
    grpc::methods::{Method, Methods},
    proto::v1::MethodClass,
};

/// What a call asks of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Read,
    Write,
    /// It streams on these sides, and is bounded by what it sends.
    Stream {
        by_client: bool,
        by_server: bool,
    },
    /// It is never shed: health, reflection, the status of the process, and unknown methods.
    Exempt,
}

/// The class of each method, by its path.
#[derive(Debug)]
pub(super) struct Classes(Methods);

impl Classes {
    pub(super) fn new() -> Self {
        Self(Methods::new())
    }

    pub(super) fn of(&self, path: &str) -> Class {
        self.0.get(path).map_or(Class::Exempt, class_of)
    }
}

fn class_of(method: Method) -> Class {
    match (method.is_client_streaming, method.is_server_streaming) {
        (false, false) => match method.class {
            MethodClass::Read => Class::Read,
            MethodClass::Write => Class::Write,
            MethodClass::Status | MethodClass::Unspecified => Class::Exempt,
        },
        (by_client, by_server) => Class::Stream { by_client, by_server },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_classified_by_what_they_do() {
        let classes = Classes::new();
        let of = |method: &str| classes.of(&format!("/roost.v1.{method}"));
        assert_eq!(of("TimelineService/ListHomeTimeline"), Class::Read);
        assert_eq!(of("PostService/PublishPost"), Class::Write);
        assert_eq!(of("StatusService/GetStatus"), Class::Exempt);
        let stream = |by_client, by_server| Class::Stream { by_client, by_server };
        assert_eq!(of("TimelineService/StreamHomeTimeline"), stream(false, true));
        assert_eq!(of("PostService/StreamPublishPosts"), stream(true, true));
        assert_eq!(of("GraphService/ImportFollows"), stream(true, false));
        assert_eq!(classes.of("/grpc.health.v1.Health/Check"), Class::Exempt);
        assert_eq!(of("PostService/MakeCoffee"), Class::Exempt);
    }
}
