job "task-template-script-defaults" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      template {
        data        = "a"
        destination = "local/a"
        change_mode = "script"
        change_script {
          command = "/bin/true"
        }
      }
    }
  }
}
