job "connect-sidecar-all" {
  group "app" {
    network {
      mode = "bridge"
    }
    service {
      name = "web"
      port = "9001"
      connect {
        sidecar_service {
          tags                      = ["mesh"]
          port                      = "proxy"
          disable_default_tcp_check = true
          meta {
            team = "a"
          }
          proxy {
            local_service_address = "127.0.0.1"
            local_service_port    = 9002
            expose {
              path {
                path            = "/metrics"
                protocol        = "http"
                local_path_port = 9003
                listener_port   = "metrics"
              }
            }
            upstreams {
              destination_name       = "api"
              destination_namespace  = "default"
              destination_peer       = "dc9"
              destination_partition  = "p"
              destination_type       = "service"
              local_bind_port        = 8000
              local_bind_address     = "127.0.0.9"
              local_bind_socket_path = "/tmp/api.sock"
              local_bind_socket_mode = "0600"
              datacenter             = "dc2"
              mesh_gateway {
                mode = "local"
              }
              config {
                connect_timeout_ms = 3000
              }
            }
            upstreams {
              destination_name = "db"
              local_bind_port  = 8001
            }
            transparent_proxy {
              uid                    = "101"
              outbound_port          = 15001
              exclude_inbound_ports  = ["metrics", "9200"]
              exclude_outbound_ports = [53, 123]
              exclude_outbound_cidrs = ["10.0.0.0/8"]
              exclude_uids           = ["500"]
              no_dns                 = true
            }
            config {
              protocol = "http"
            }
          }
        }
        sidecar_task {
          name           = "proxy"
          driver         = "docker"
          user           = "envoy"
          kill_timeout   = "10s"
          shutdown_delay = "2s"
          kill_signal    = "SIGTERM"
          config {
            image = "envoyproxy/envoy:v1.30"
          }
          env {
            LEVEL = "info"
          }
          meta {
            side = "car"
          }
          resources {
            cpu    = 50
            memory = 64
          }
          logs {
            max_files     = 2
            max_file_size = 2
          }
          volume_mount {
            volume      = "data"
            destination = "/data"
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
