//! Test fixtures: namespaces, upstreams, resolvers (dev only)
