job "group-restart-batch" {
  type = "batch"

  group "app" {
    restart {
      attempts = 1
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
