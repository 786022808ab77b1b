//! What each method needs from the server, as its option in `proto/` declares it.
//!
//! The options are extensions, which the types of prost-types drop; so the few fields that are
//! needed of the descriptors are decoded here.

use std::collections::HashMap;

use prost::Message;

use crate::proto::{FILE_DESCRIPTOR_SET, v1::MethodClass};

/// A method of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Method {
    /// What a call of it needs.
    pub(super) class: MethodClass,
    pub(super) is_client_streaming: bool,
    pub(super) is_server_streaming: bool,
}

/// The methods of the API, by their paths, such as `/roost.v1.PostService/PublishPost`.
#[derive(Clone, Debug)]
pub(super) struct Methods(HashMap<String, Method>);

impl Methods {
    /// The methods that `proto/` declares.
    pub(super) fn new() -> Self {
        // The build makes the descriptors. Were they damaged, the tests would fail.
        let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap_or_default().file;
        let services = files.iter().flat_map(|file| {
            file.service.iter().map(|service| (&file.package, &service.name, &service.method))
        });
        let methods = services.flat_map(|(package, service, methods)| {
            let path = move |method: &str| format!("/{package}.{service}/{method}");
            methods.iter().map(move |method| (path(&method.name), method.method()))
        });
        Self(methods.collect())
    }

    /// The method of this path, if the API has it.
    pub(super) fn get(&self, path: &str) -> Option<Method> {
        self.0.get(path).copied()
    }

    /// What a call of this path needs; `None` if the API has no such method.
    pub(super) fn class(&self, path: &str) -> Option<MethodClass> {
        self.get(path).map(|method| method.class)
    }

    /// The paths of all methods.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

// Fields of google/protobuf/descriptor.proto, and of roost/v1/annotations.proto.

#[derive(Clone, PartialEq, Message)]
struct FileDescriptorSet {
    #[prost(message, repeated, tag = "1")]
    file: Vec<FileDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct FileDescriptor {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    service: Vec<ServiceDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct ServiceDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    method: Vec<MethodDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct MethodDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "4")]
    options: Option<MethodOptions>,
    #[prost(bool, tag = "5")]
    client_streaming: bool,
    #[prost(bool, tag = "6")]
    server_streaming: bool,
}

#[derive(Clone, PartialEq, Message)]
struct MethodOptions {
    #[prost(enumeration = "MethodClass", tag = "50601")]
    method_class: i32,
}

impl MethodDescriptor {
    fn method(&self) -> Method {
        Method {
            class: self.options.as_ref().map(MethodOptions::method_class).unwrap_or_default(),
            is_client_streaming: self.client_streaming,
            is_server_streaming: self.server_streaming,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_classified() {
        let methods = Methods::new();
        assert!(methods.paths().count() >= 35, "the descriptors are there");
        let unspecified: Vec<&str> = methods
            .paths()
            .filter(|path| methods.class(path) == Some(MethodClass::Unspecified))
            .collect();
        assert!(unspecified.is_empty(), "without `method_class` in proto/: {unspecified:?}");
    }

    #[test]
    fn classes_are_those_of_the_proto() {
        let methods = Methods::new();
        for (path, class) in [
            ("/roost.v1.TimelineService/ListHomeTimeline", Some(MethodClass::Read)),
            ("/roost.v1.TimelineService/StreamHomeTimeline", Some(MethodClass::Read)),
            ("/roost.v1.TimelineService/MoveReadMarker", Some(MethodClass::Write)),
            ("/roost.v1.GraphService/Follow", Some(MethodClass::Write)),
            ("/roost.v1.StatusService/GetStatus", Some(MethodClass::Status)),
            ("/roost.v1.PostService/MakeCoffee", None),
            ("/grpc.health.v1.Health/List", None),
        ] {
            assert_eq!(methods.class(path), class, "{path}");
        }
    }
}
