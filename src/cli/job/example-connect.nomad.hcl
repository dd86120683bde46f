# Two services that reach each other through a service mesh. This needs a node with Consul, and proxies that run there.
job "countdash" {
  # Datacenters to run in. Patterns are allowed; "*" stands for all.
  datacenters = ["*"]

  # The service that counts.
  group "api" {
    # Each allocation has a network of its own; nothing but the proxy is reachable from outside.
    network {
      mode = "bridge"
    }

    service {
      name = "count-api"

      # Where the task listens, inside its network.
      port = "9001"

      connect {
        # A proxy beside the task, which carries the traffic of the mesh.
        sidecar_service {}
      }

      # Checks pass through the proxy where they are exposed.
      #
      # check {
      #   expose   = true
      #   name     = "api-health"
      #   type     = "http"
      #   path     = "/health"
      #   interval = "10s"
      #   timeout  = "3s"
      # }
    }

    task "web" {
      driver = "docker"

      config {
        image          = "hashicorpdev/counter-api:v3"
        auth_soft_fail = true
      }

      # resources {
      #   cpu    = 100
      #   memory = 300
      # }
    }
  }

  # The page that shows the count.
  group "dashboard" {
    network {
      mode = "bridge"

      # Browsers come from outside of the mesh.
      port "http" {
        static = 9002
        to     = 9002
      }
    }

    service {
      name = "count-dashboard"
      port = "http"

      connect {
        sidecar_service {
          proxy {
            # The task finds the other service at this port of its own 127.0.0.1.
            upstreams {
              destination_name = "count-api"
              local_bind_port  = 8080
            }
          }
        }
      }
    }

    task "dashboard" {
      driver = "docker"

      env {
        # The address of the upstream; dashes of its name become underscores.
        COUNTING_SERVICE_URL = "http://${NOMAD_UPSTREAM_ADDR_count_api}"
      }

      config {
        image          = "hashicorpdev/counter-dashboard:v3"
        auth_soft_fail = true
      }
    }
  }
}
