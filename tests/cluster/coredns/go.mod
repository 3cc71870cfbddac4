// The name server of a Kubernetes cluster, as `cargo xtask cluster` builds it.
module netflow.test/cluster/coredns

go 1.26.0

tool github.com/coredns/coredns

require github.com/coredns/coredns v1.15.0
