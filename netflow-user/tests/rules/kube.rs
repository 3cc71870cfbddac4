//! Rules in the forms in which kube-proxy writes them, for one address family.

pub struct Kube {
    pub v6: bool,
}

impl Kube {
    pub fn vip(&self) -> &'static str {
        if self.v6 { "fd00:96::10" } else { "10.96.0.10" }
    }

    /// A Service without endpoints.
    pub fn empty(&self) -> &'static str {
        if self.v6 { "fd00:96::11" } else { "10.96.0.11" }
    }

    /// A load balancer's address whose Service has no endpoint on this node.
    pub fn balancer(&self) -> &'static str {
        if self.v6 {
            "2001:db8:5::5"
        } else {
            "203.0.113.5"
        }
    }

    /// An address of the Service range that no Service has.
    pub fn unused(&self) -> &'static str {
        if self.v6 { "fd00:96::99" } else { "10.96.0.99" }
    }

    pub fn pods(&self) -> &'static str {
        if self.v6 {
            "fd00:244::/32"
        } else {
            "10.244.0.0/16"
        }
    }

    pub fn range(&self) -> &'static str {
        if self.v6 {
            "fd00:96::/32"
        } else {
            "10.96.0.0/16"
        }
    }

    pub fn endpoints(&self) -> [&'static str; 2] {
        if self.v6 {
            ["fd00:244::2", "fd00:244::3"]
        } else {
            ["10.244.1.2", "10.244.2.3"]
        }
    }

    fn with_port(&self, ip: &str) -> String {
        if self.v6 {
            format!("[{ip}]:8080")
        } else {
            format!("{ip}:8080")
        }
    }

    fn host(&self) -> u8 {
        if self.v6 { 128 } else { 32 }
    }

    /// For iptables-restore.
    pub fn iptables(&self) -> String {
        let [a, b] = self.endpoints();
        let (to_a, to_b) = (self.with_port(a), self.with_port(b));
        let (vip, empty, balancer, pods, host) = (
            self.vip(),
            self.empty(),
            self.balancer(),
            self.pods(),
            self.host(),
        );
        format!(
            r#"*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SVC-WEBAPIHTTPAAAAAA - [0:0]
:KUBE-EXT-WEBAPIHTTPAAAAAA - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-BBBBBBBBBBBBBBBB - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-SERVICES -m comment --comment "app/web-api:http cluster IP" -m tcp -p tcp -d {vip}/{host} --dport 80 -j KUBE-SVC-WEBAPIHTTPAAAAAA
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -m comment --comment app/web-api:http -m tcp -p tcp --dport 30080 -j KUBE-EXT-WEBAPIHTTPAAAAAA
-A KUBE-EXT-WEBAPIHTTPAAAAAA -m comment --comment "masquerade traffic for app/web-api:http external destinations" -j KUBE-MARK-MASQ
-A KUBE-EXT-WEBAPIHTTPAAAAAA -j KUBE-SVC-WEBAPIHTTPAAAAAA
-A KUBE-SVC-WEBAPIHTTPAAAAAA -m comment --comment "app/web-api:http cluster IP" ! -s {pods} -m tcp -p tcp -d {vip}/{host} --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-WEBAPIHTTPAAAAAA -m comment --comment "app/web-api:http -> {to_a}" -m statistic --mode random --probability 0.5000000000 -j KUBE-SEP-AAAAAAAAAAAAAAAA
-A KUBE-SVC-WEBAPIHTTPAAAAAA -m comment --comment "app/web-api:http -> {to_b}" -j KUBE-SEP-BBBBBBBBBBBBBBBB
-A KUBE-SEP-AAAAAAAAAAAAAAAA -m comment --comment app/web-api:http -s {a}/{host} -j KUBE-MARK-MASQ
-A KUBE-SEP-AAAAAAAAAAAAAAAA -m comment --comment app/web-api:http -m tcp -p tcp -j DNAT --to-destination {to_a}
-A KUBE-SEP-BBBBBBBBBBBBBBBB -m comment --comment app/web-api:http -s {b}/{host} -j KUBE-MARK-MASQ
-A KUBE-SEP-BBBBBBBBBBBBBBBB -m comment --comment app/web-api:http -m tcp -p tcp -j DNAT --to-destination {to_b}
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
*filter
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A INPUT -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-SERVICES -m comment --comment "app/empty:http has no endpoints" -m tcp -p tcp -d {empty}/{host} --dport 80 -j REJECT
-A KUBE-EXTERNAL-SERVICES -m comment --comment "app/empty:http has no endpoints" -m addrtype --dst-type LOCAL -m tcp -p tcp --dport 30081 -j REJECT
-A KUBE-EXTERNAL-SERVICES -m comment --comment "app/far:http has no local endpoints" -m tcp -p tcp -d {balancer}/{host} --dport 80 -j DROP
COMMIT
"#
        )
    }

    /// For `nft -f`. `per_endpoint`: a chain for each endpoint (as kube-proxy 1.29 to 1.33), else one map in the rule.
    pub fn nftables(&self, per_endpoint: bool) -> String {
        let ip = if self.v6 { "ip6" } else { "ip" };
        let addr = if self.v6 { "ipv6_addr" } else { "ipv4_addr" };
        let loopback = if self.v6 {
            "ip6 daddr != ::1"
        } else {
            "ip daddr != 127.0.0.0/8"
        };
        let [a, b] = self.endpoints();
        let (to_a, to_b) = (self.with_port(a), self.with_port(b));
        let (vip, empty, balancer, pods, range) = (
            self.vip(),
            self.empty(),
            self.balancer(),
            self.pods(),
            self.range(),
        );
        let choose = if per_endpoint {
            "numgen random mod 2 vmap { 0 : goto endpoint-A-app/web-api/tcp/http__a/8080, 1 : goto endpoint-B-app/web-api/tcp/http__b/8080 }".to_owned()
        } else {
            format!(
                "meta l4proto tcp dnat {ip} to numgen random mod 2 map {{ 0 : {a} . 8080, 1 : {b} . 8080 }}"
            )
        };
        format!(
            r#"table {ip} kube-proxy {{
  comment "rules for kube-proxy"
  set cluster-ips {{ type {addr}; comment "Active ClusterIPs"; elements = {{ {vip}, {empty} }} }}
  map service-ips {{ type {addr} . inet_proto . inet_service : verdict; elements = {{ {vip} . tcp . 80 : goto service-X-app/web-api/tcp/http }} }}
  map service-nodeports {{ type inet_proto . inet_service : verdict; elements = {{ tcp . 30080 : goto external-X-app/web-api/tcp/http }} }}
  map no-endpoint-services {{ type {addr} . inet_proto . inet_service : verdict; elements = {{ {empty} . tcp . 80 comment "app/empty:http" : goto reject-chain, {balancer} . tcp . 80 comment "app/far:http" : drop }} }}
  map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; elements = {{ tcp . 30081 comment "app/empty:http" : goto reject-chain }} }}
  map firewall-ips {{ type {addr} . inet_proto . inet_service : verdict; }}
  chain endpoint-A-app/web-api/tcp/http__a/8080 {{
    {ip} saddr {a} jump mark-for-masquerade
    meta l4proto tcp dnat to {to_a}
  }}
  chain endpoint-B-app/web-api/tcp/http__b/8080 {{
    {ip} saddr {b} jump mark-for-masquerade
    meta l4proto tcp dnat to {to_b}
  }}
  chain service-X-app/web-api/tcp/http {{
    {ip} daddr {vip} tcp dport 80 {ip} saddr != {pods} jump mark-for-masquerade
    {choose}
  }}
  chain external-X-app/web-api/tcp/http {{
    jump mark-for-masquerade
    goto service-X-app/web-api/tcp/http
  }}
  chain reject-chain {{ comment "helper for @no-endpoint-services / @no-endpoint-nodeports"; reject; }}
  chain mark-for-masquerade {{ meta mark set meta mark or 0x4000; }}
  chain masquerading {{
    meta mark and 0x4000 == 0 return
    meta mark set meta mark xor 0x4000
    masquerade fully-random
  }}
  chain services {{
    {ip} daddr . meta l4proto . th dport vmap @service-ips
    fib daddr type local {loopback} meta l4proto . th dport vmap @service-nodeports
  }}
  chain service-endpoints-check {{ {ip} daddr . meta l4proto . th dport vmap @no-endpoint-services; }}
  chain nodeport-endpoints-check {{ fib daddr type local {loopback} meta l4proto . th dport vmap @no-endpoint-nodeports; }}
  chain firewall-check {{ {ip} daddr . meta l4proto . th dport vmap @firewall-ips; }}
  chain cluster-ips-check {{
    {ip} daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"
    {ip} daddr {range} drop comment "Drop traffic to unallocated ClusterIPs"
  }}
  chain filter-prerouting-pre-dnat {{ type filter hook prerouting priority dstnat - 10; ct state new jump firewall-check; }}
  chain filter-input {{
    type filter hook input priority filter;
    ct state new jump nodeport-endpoints-check
    ct state new jump service-endpoints-check
  }}
  chain filter-forward {{
    type filter hook forward priority filter;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }}
  chain filter-output {{
    type filter hook output priority filter;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }}
  chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
  chain nat-output {{ type nat hook output priority -100; jump services; }}
  chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}
}}
"#
        )
    }
}
