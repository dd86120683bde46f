job "connect-ingress" {
  group "app" {
    network {
      mode = "bridge"
    }
    service {
      name = "web"
      port = "9001"
      connect {
        gateway {
          proxy {
            connect_timeout                     = "500ms"
            envoy_gateway_bind_tagged_addresses = true
            envoy_gateway_no_default_bind       = true
            envoy_dns_discovery_type            = "LOGICAL_DNS"
            envoy_gateway_bind_addresses "all" {
              address = "0.0.0.0"
              port    = 8443
            }
            config {
              x = 1
            }
          }
          ingress {
            tls {
              enabled         = true
              tls_min_version = "TLSv1_2"
              tls_max_version = "TLSv1_3"
              cipher_suites   = ["TLS_AES_128_GCM_SHA256"]
              sds {
                cluster_name  = "certs"
                cert_resource = "web"
              }
            }
            listener {
              port     = 8443
              protocol = "http"
              service {
                name                    = "*"
                hosts                   = ["shop.example.org"]
                max_connections         = 100
                max_pending_requests    = 50
                max_concurrent_requests = 25
                tls {
                  sds {
                    cert_resource = "shop"
                  }
                }
                request_headers {
                  add {
                    x-gateway = "in"
                  }
                  set {
                    x-one = "1"
                  }
                  remove = ["cookie"]
                }
                response_headers {
                  remove = ["server"]
                }
              }
            }
          }
        }
      }
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
