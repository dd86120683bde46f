job "config-blocks" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        mount {
          type   = "bind"
          source = "/a"
        }
        mount {
          type = "volume"
          volume_options {
            labels {
              k = "v"
            }
          }
        }
      }
    }
  }
}
