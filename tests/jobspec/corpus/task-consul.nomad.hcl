job "task-consul" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      consul {
        partition = "default"
      }
    }
  }
}
