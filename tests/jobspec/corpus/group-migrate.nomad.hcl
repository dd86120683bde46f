job "group-migrate" {
  group "app" {
    migrate {
      min_healthy_time = "20s"
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
