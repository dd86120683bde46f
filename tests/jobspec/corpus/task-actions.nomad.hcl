job "task-actions" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      action "migrate" {
        command = "/app/migrate"
        args    = ["--all"]
      }
      action "ping" {
        command = "/bin/ping"
      }
    }
  }
}
