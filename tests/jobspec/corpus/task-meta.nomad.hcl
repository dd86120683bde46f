job "task-meta" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      meta {
        tier = "gold"
      }
    }
  }
}
