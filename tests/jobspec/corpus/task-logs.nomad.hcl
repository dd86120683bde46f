job "task-logs" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      logs {
        max_files     = 3
        max_file_size = 5
        disabled      = true
        enabled       = false
      }
    }
  }
}
