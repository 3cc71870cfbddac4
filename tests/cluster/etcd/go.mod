// The store of a Kubernetes cluster, as `cargo xtask cluster` builds it.
module netflow.test/cluster/etcd

go 1.26.0

tool go.etcd.io/etcd/server/v3

require go.etcd.io/etcd/server/v3 v3.7.3
