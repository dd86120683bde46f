job "task-lifecycle-empty" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      lifecycle {}
    }
  }
}
