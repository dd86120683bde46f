job "group-scaling-off" {
  group "app" {
    scaling {
      enabled = false
      max     = 4
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
