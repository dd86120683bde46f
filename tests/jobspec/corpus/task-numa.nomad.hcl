job "task-numa" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      resources {
        cores = 4
        device "gpu" {}
        numa {
          affinity = "require"
          devices  = ["gpu"]
        }
      }
    }
  }
}
